#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// How much time the patterns of a file may take on one text, before that is an error.
///
/// It is the thread's own computing time, so that a busy or suspended machine doesn't matter. Patterns in use take less
/// than 0.2 microseconds for a byte; those that take exponential or quadratic time would stop the program.
struct WorkBudget {
    private static let nanosecondsAtLeast = 5_000_000_000
    private static let nanosecondsPerByte = 1_000

    private let end: Int

    /// What is sensible for a text of that length.
    init(textBytes: Int) {
        self.init(nanoseconds: Self.nanosecondsAtLeast + textBytes * Self.nanosecondsPerByte)
    }

    init(nanoseconds: Int) { end = Self.now() + nanoseconds }

    var isSpent: Bool { Self.now() >= end }

    private static func now() -> Int {
        var time = timespec()
        unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Int(time.tv_sec) * 1_000_000_000 + Int(time.tv_nsec)
    }
}
