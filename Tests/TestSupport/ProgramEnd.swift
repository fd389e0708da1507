/// What a program told that a precondition ended.
public enum ProgramEnd {
    /// Whether its standard error has the message of the precondition. Optimized programs end without one.
    ///
    /// - Parameter standardError: of an exit test that observed it; nil if that failed in another way.
    public static func says(_ message: String, _ standardError: [UInt8]?) -> Bool {
        #if DEBUG
            String(decoding: standardError ?? [], as: UTF8.self).contains(": \(message)\n")
        #else
            standardError != nil
        #endif
    }
}
