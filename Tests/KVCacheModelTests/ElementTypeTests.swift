import TestSupport
import Testing
import ThinkCompress

@Suite struct ElementTypeTests {
    @Test(
        "has the numbers and names of the format",
        arguments: [
            (ElementType.float16, UInt32(1), "F16", 16), (.bfloat16, 2, "BF16", 16), (.float32, 3, "F32", 32),
        ]
    )
    func numbersAndNames(type: ElementType, number: UInt32, name: String, bits: Int) {
        #expect(type.rawValue == number)
        #expect(type.name == name)
        #expect(ElementType(name: name) == type)
        #expect(type.bitWidth == bits)
        #expect(type.byteCount == bits / 8)
    }

    @Test("knows no others", arguments: ["F64", "f16", "I32", ""])
    func refusesOthers(name: String) {
        #expect(ElementType(name: name) == nil)
    }
}
