internal import ArgumentParser
internal import Foundation

/// Standard input and output in the place of files.
enum StandardStreams {
    /// What a command line calls them.
    static let name = "-"

    /// Checks that standard input and output can be what a command line asks for.
    ///
    /// - Parameters:
    ///   - texts: names of files that hold text, which may be typed.
    ///   - inputs: names of the other files that are read.
    ///   - output: the name of the file that is written.
    ///   - option: the output's option, for the message.
    ///   - isText: whether the output is text, which a terminal may show.
    ///   - json: whether standard output gets JSON.
    /// - Throws: `ValidationError` if two files are to be the same stream, or data of no use to people is to come from
    ///   a terminal or go to one.
    static func check(
        texts: [String?] = [],
        inputs: [String?] = [],
        output: String? = nil,
        option: String = "-o",
        isText: Bool = false,
        json: Bool = false
    ) throws {
        guard (texts + inputs).count(where: { $0 == name }) <= 1 else {
            throw ValidationError("only one file can be standard input; name the others")
        }
        if inputs.contains(name) && isatty(STDIN_FILENO) == 1 {
            throw ValidationError("standard input is a terminal; send a file to it, or name one")
        }
        guard output == name else { return }
        if json { throw ValidationError("\(option) - and --json both write to standard output; name a file") }
        if !isText && isatty(STDOUT_FILENO) == 1 {
            throw ValidationError("\(option) -: standard output is a terminal; send it to a file, or name one")
        }
    }
}
