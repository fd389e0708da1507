#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// How much a file may cost: one budget for opening it, and one for each text that is encoded, whatever its steps are.
///
/// The time is the thread's own computing time, so that a busy or suspended machine doesn't matter. Patterns in use take
/// less than 0.2 microseconds for a byte; those that take exponential or quadratic time would stop the program.
struct WorkBudget {
    private static let nanosecondsAtLeast = 5_000_000_000
    private static let nanosecondsPerByte = 1_000
    /// How long a text may become by normalization and splitting, in bytes: 8 times `Tokenizer.maximumTextBytes`,
    /// where `▁` for a space is 3 times as long. A file that splits such a text into single bytes takes 7 GB of memory.
    private static let maximumTextBytes = 1 << 27
    /// The same for an added token, which has at most `TokenTrie.maximumTokenBytes` before and after.
    private static let maximumTokenBytes = 1 << 14

    private let end: Int
    /// How long any text may become on its way.
    let maximumBytes: Int

    /// What is sensible for encoding a text of that length.
    init(textBytes: Int) {
        self.init(nanoseconds: Self.nanosecondsAtLeast + textBytes * Self.nanosecondsPerByte)
    }

    /// What is sensible for opening a file of that length.
    init(fileBytes: Int) {
        self.init(
            nanoseconds: Self.nanosecondsAtLeast + fileBytes * Self.nanosecondsPerByte,
            maximumBytes: Self.maximumTokenBytes
        )
    }

    init(nanoseconds: Int, maximumBytes: Int = Self.maximumTextBytes) {
        end = Self.now() + nanoseconds
        self.maximumBytes = maximumBytes
    }

    var isSpent: Bool { Self.now() >= end }

    /// Checks, before a step is done where its size is known, that what it makes isn't too long.
    func check(byteCount: Int) throws(TokenizerError) {
        guard byteCount <= maximumBytes else {
            throw TokenizerError(
                .textTooLong,
                "the text becomes longer than \(maximumBytes) bytes by what the file does to it; encode it in parts"
            )
        }
    }

    /// Checks that there is time for another step.
    func checkTime() throws(TokenizerError) {
        guard !isSpent else {
            throw TokenizerError(
                .tooMuchWork,
                "what the file does to this text takes too much time; encode it in parts"
            )
        }
    }

    private static func now() -> Int {
        var time = timespec()
        unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Int(time.tv_sec) * 1_000_000_000 + Int(time.tv_nsec)
    }
}
