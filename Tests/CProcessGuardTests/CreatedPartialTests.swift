import CProcessGuard
import Foundation
import TestSupport
import Testing

/// Files that are created while a signal handler ends the process on another thread.
@Suite struct CreatedPartialTests {
    @Test("what is created while files are removed is removed as well, and nothing is created after that")
    func createdWhileRemoving() async {
        await #expect(processExitsWith: .success) {
            let folder = try TemporaryFolder()
            for thread in 0..<4 {
                Thread.detachNewThread {
                    for number in 0... {
                        let path = folder.file("\(thread) \(number)")
                        var partial: Int32 = TCG_NOT_COVERED
                        let descriptor = tcg_create_partial(path, 0o600, &partial)
                        precondition(descriptor >= 0 && partial >= 0)
                        close(descriptor)
                        // Those that stay are what is to be removed; there is room for some.
                        guard number > 9 else { continue }
                        unlink(path)
                        tcg_forget_partial(partial)
                    }
                }
            }
            while folder.content.count < 30 { usleep(100) }
            tcg_remove_partials()
            for _ in 0..<20 {
                precondition(folder.content == [])
                usleep(5000)
            }
        }
    }

    @Test("a file that exists is not created again, nor covered")
    func existing() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("a")
        try Data("old".utf8).write(to: URL(filePath: path))
        var partial: Int32 = 0
        #expect(tcg_create_partial(path, 0o600, &partial) == -1)
        #expect(errno == EEXIST)
        #expect(partial == TCG_NOT_COVERED)
        #expect(try Data(contentsOf: URL(filePath: path)) == Data("old".utf8))
    }
}
