import CThinkKernels
import Testing

#if canImport(Darwin)
    import Darwin
#else
    import Glibc
#endif

@Suite("Choice of kernels")
struct DispatchTests {
    @Test("Every machine has scalar, and unknown names have nothing")
    func named() {
        #expect(tck_kernels_named("scalar") != nil)
        #expect(tck_kernels_named("sse9") == nil)
        #expect(tck_kernels_named("") == nil)
        for set in KernelSet.vectorSets { #expect(String(cString: set.kernels.name) == set.name) }
    }

    @Test("The best set is the widest")
    func best() async {
        await #expect(processExitsWith: .success) {
            unsetenv("THINK_COMPRESS_KERNELS")
            let expected = KernelSet.vectorSets.first ?? KernelSet.scalar
            precondition(String(cString: tck_best_kernels()!.pointee.name) == expected.name)
        }
    }

    @Test("The environment forces a set")
    func forced() async {
        await #expect(processExitsWith: .success) {
            setenv("THINK_COMPRESS_KERNELS", "scalar", 1)
            precondition(String(cString: tck_best_kernels()!.pointee.name) == "scalar")
        }
    }

    @Test("An unknown set in the environment gives none")
    func unknown() async {
        await #expect(processExitsWith: .success) {
            setenv("THINK_COMPRESS_KERNELS", "sse9", 1)
            precondition(tck_best_kernels() == nil)
        }
    }
}
