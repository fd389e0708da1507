import TestSupport
import Testing
import ThinkCompress

@Suite struct CacheIdentityTests {
    @Test(
        "knows what tells caches apart",
        arguments: [
            ("model.id", true), ("model.fingerprint", true), ("rope.theta", true), ("tokenizer.sha256", true),
            ("producer", false), ("models", false), ("note.model.id", false), ("", false),
            // Keys are compared by their bytes: here the point and the accent are one character.
            ("model.\u{301}x", true),
        ]
    )
    func includes(key: String, isIdentity: Bool) {
        #expect(CacheIdentity.includes(key) == isIdentity)
    }

    @Test("finds no mismatch where values are equal or only one side has them")
    func noMismatch() {
        let left = ["model.id": "a", "rope.theta": "10000.0", "producer": "one"]
        #expect(CacheIdentity.mismatch(left, left) == nil)
        #expect(CacheIdentity.mismatch(left, [:]) == nil)
        #expect(CacheIdentity.mismatch([:], left) == nil)
        #expect(CacheIdentity.mismatch(left, ["model.id": "a", "tokenizer.sha256": "x", "producer": "two"]) == nil)
    }

    @Test("names the first key in order whose values differ")
    func namesFirst() {
        let left = ["tokenizer.sha256": "x", "rope.theta": "1", "model.id": "a", "model.architecture": "llama"]
        let right = ["tokenizer.sha256": "y", "rope.theta": "2", "model.id": "a", "model.fingerprint": "f"]
        #expect(CacheIdentity.mismatch(left, right) == .init(name: "rope.theta", left: "1", right: "2"))
        #expect(CacheIdentity.mismatch(right, left) == .init(name: "rope.theta", left: "2", right: "1"))
    }
}
