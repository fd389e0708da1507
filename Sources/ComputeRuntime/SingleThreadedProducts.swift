package import ByteStorage
internal import COpenBLAS
internal import Synchronization

/// Lets matrix products run on the calling thread only, while work is spread over threads by other means.
///
/// OpenBLAS has one setting for the process: the first of those who need it saves it and the last restores it.
package struct SingleThreadedProducts: ~Copyable {
    private struct Setting {
        var users = 0
        var formerCount: Int32 = 1
        /// Products that OpenBLAS has buffers for.
        var buffers: Int32 = 0
    }

    private static let setting = Mutex(Setting())

    /// Lets all matrix products of the process run on the calling thread only, and ends threads that OpenBLAS has
    /// started when it was loaded (on Linux the command keeps it from that): they spin for a while and keep others from working.
    ///
    /// For the beginning of a program; nobody else may be using OpenBLAS.
    package static func adoptForProcess() {
        setting.withLock { setting in
            setting.users += 1
            openblas_set_num_threads(1)
        }
        tcb_end_threads()
    }

    /// Sees to it that so many threads can compute products at a time: OpenBLAS takes large buffers for them when it
    /// first needs them, and waits for ever where there is no memory.
    ///
    /// - Throws: `MemoryError` if there is no memory for the buffers.
    package static func reserve(callers: Int) throws(MemoryError) {
        try setting.withLock { (setting) throws(MemoryError) in
            let wanted = Int32(min(callers, tcb_most_buffers))
            guard setting.buffers < wanted else { return }
            setting.buffers = tcb_take_buffers(setting.buffers, wanted)
            if setting.buffers < wanted {
                throw MemoryError(byteCount: Int(wanted - setting.buffers) * tcb_buffer_bytes)
            }
        }
    }

    package init() {
        Self.setting.withLock { setting in
            if setting.users == 0 {
                setting.formerCount = openblas_get_num_threads()
                if setting.formerCount != 1 { openblas_set_num_threads(1) }
            }
            setting.users += 1
        }
    }

    deinit {
        Self.setting.withLock { setting in
            setting.users -= 1
            if setting.users == 0, setting.formerCount != 1 { openblas_set_num_threads(setting.formerCount) }
        }
    }
}
