#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The sanitizer that `swift test --sanitize address` builds in.
public enum AddressSanitizer {
    /// Whether tests run under it: it replaces `malloc`, keeps what was freed, and takes memory of its own beside it.
    public static let isPresent = dlsym(dlopen(nil, RTLD_NOW), "__asan_init") != nil
}
