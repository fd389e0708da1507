#pragma once

// Lets system calls of a program fail, by LD_PRELOAD. There is nothing to call here; environment variables choose what
// happens:
//
//   FAULT_KIND       which calls: allocation (of FAULT_BYTES or more, by malloc and its kin or mmap), thread, open,
//                    read, write, sync, rename, link, close, truncate, status, map (of a file), mode, lock
//   FAULT_NUMBER     the number of the call of that kind that fails, from 1; none fails without it
//   FAULT_FOLLOWING  1 if all calls of that kind after it fail as well
//   FAULT_ERROR      the value of errno, 5 (EIO) if absent; 0 lets a read or write do only a part
//   FAULT_BYTES      the least size of an allocation that counts, 1048576 if absent
//   FAULT_LOG        an existing file to which a line is added for each of the first 10,000 calls of a kind:
//                    [! ]KIND FUNCTION NUMBER PATH, where ! means that it failed, and the number is the descriptor,
//                    the size or the flags
//
// Calls count once main has begun, threads from the beginning of the process.
