import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Names of prefixes against digests made here from Formats/snapshot.md, "CHAIN".
@Suite struct PrefixChainTests {
    /// KV heads, key dimension and value dimension of each layer.
    static let layers = [(2, 20, 20), (1, 40, 6), (0, 0, 0)]
    static let metadata = [
        "model.id": "test", "rope.theta": "10000.0", "tokenizer.sha256": "00ff", "producer": "this test",
        "model": "no prefix with a point", "modelx.id": "another word",
    ]

    /// The digests as the format describes them.
    private static func digests(
        tokens: [Int32],
        elementType: UInt32,
        layers: [(kvHeads: Int, keyDimension: Int, valueDimension: Int)] = layers,
        identity: [(String, String)]
    ) -> [[UInt8]] {
        var bytes = [elementType, UInt32(layers.count)].flatMap { littleEndianBytes($0) }
        for layer in layers {
            for number in [layer.kvHeads, layer.keyDimension, layer.valueDimension] {
                bytes += littleEndianBytes(UInt32(number))
            }
        }
        for (key, value) in identity {
            for text in [key, value] { bytes += littleEndianBytes(UInt32(text.utf8.count)) + Array(text.utf8) }
        }
        var former = SHA256.digest(bytes)
        return (0..<tokens.count / 256).map { page in
            let numbers = tokens[page * 256..<(page + 1) * 256]
            former = SHA256.digest(former + numbers.flatMap { littleEndianBytes($0) })
            return former
        }
    }

    private static func tokens(_ count: Int) -> [Int32] { (0..<Int32(count)).map { $0 &* 2_654_435 - 7 } }

    private static func geometryOfTest() throws -> CacheGeometry {
        try CacheGeometry(
            layers.map { kvHeads, keyDimension, valueDimension in
                kvHeads == 0
                    ? .none
                    : try LayerGeometry(
                        kvHeads: kvHeads,
                        keyDimension: keyDimension,
                        valueDimension: valueDimension
                    )
            }
        )
    }

    @Test(
        "digests are those of the format",
        arguments: [0, 255, 256, 511, 512, 1000],
        [ElementType.float16, .bfloat16, .float32]
    )
    func digestsOfFormat(count: Int, type: ElementType) throws {
        let digests = PrefixChain.digests(
            tokens: Self.tokens(count),
            geometry: try Self.geometryOfTest(),
            elementType: type,
            metadata: Self.metadata
        )
        let number: UInt32 =
            switch type {
            case .float16: 1
            case .bfloat16: 2
            case .float32: 3
            }
        let expected = Self.digests(
            tokens: Self.tokens(count),
            elementType: number,
            identity: [("model.id", "test"), ("rope.theta", "10000.0"), ("tokenizer.sha256", "00ff")]
        )
        #expect(digests.count == count / 256)
        #expect(digests == expected)
    }

    @Test("a longer prompt has the digests of its prefix")
    func prefixHasSameDigests() throws {
        func digests(_ tokens: [Int32]) throws -> [[UInt8]] {
            PrefixChain.digests(
                tokens: tokens,
                geometry: try Self.geometryOfTest(),
                elementType: .float16,
                metadata: Self.metadata
            )
        }
        let long = try digests(Self.tokens(1024))
        #expect(try digests(Self.tokens(600)) == Array(long.prefix(2)))
        var other = Self.tokens(1024)
        other[511] += 1
        let changed = try digests(other)
        #expect(changed[0] == long[0])
        #expect(changed[1] != long[1])
        #expect(changed[3] != long[3])
    }

    @Test(
        "identity counts and other metadata does not",
        arguments: [
            ("model.id", true), ("rope.scaling", true), ("tokenizer.sha256", true), ("producer", false),
            ("model", false), ("note", false),
        ]
    )
    func identityCounts(key: String, counts: Bool) throws {
        func digests(_ metadata: [String: String]) throws -> [[UInt8]] {
            PrefixChain.digests(
                tokens: Self.tokens(256),
                geometry: try Self.geometryOfTest(),
                elementType: .float16,
                metadata: metadata
            )
        }
        var other = Self.metadata
        other[key] = "something else"
        #expect((try digests(other) != digests(Self.metadata)) == counts)
    }

    @Test("a file has the digests of its tokens")
    func fileHasDigests() async throws {
        let folder = try TemporaryFolder()
        var model = MixedCache()
        model.tokens = 520
        let compressed = try await CompressedCache(compressing: model.make(), recipe: Recipe("kivi(bits=2)"))
        try await SnapshotWriter().write(compressed, to: folder.file("a.tkv"))
        let file = try SnapshotSurgery(path: folder.file("a.tkv"))
        let expected = Self.digests(
            tokens: (0..<520).map { $0 * 7 % 1000 },
            elementType: 1,
            layers: compressed.geometry.layers.map { ($0.kvHeads, $0.keyDimension, $0.valueDimension) },
            identity: [("model.id", "mixed"), ("rope.theta", "10000.0")]
        )
        #expect(expected.count == 2)
        #expect(file.content(SnapshotSurgery.Kind.chain) == Array(expected.joined()))
    }

    @Test("every number of every layer's shape counts, query heads don't")
    func shapeCounts() throws {
        func digest(_ layers: [(Int, Int, Int)], queryHeads: Int = 0) throws -> [UInt8]? {
            PrefixChain.digests(
                tokens: Self.tokens(256),
                geometry: try CacheGeometry(
                    layers.map {
                        try LayerGeometry(queryHeads: queryHeads, kvHeads: $0, keyDimension: $1, valueDimension: $2)
                    }
                ),
                elementType: .float16,
                metadata: Self.metadata
            ).first
        }
        let shapes = [(2, 8, 8), (2, 8, 8)]
        let known = try #require(try digest(shapes))
        #expect(try digest(shapes, queryHeads: 4) == known)
        for other in [[(2, 8, 8)], [(2, 8, 8), (1, 8, 8)], [(2, 8, 8), (2, 9, 8)], [(2, 8, 7), (2, 8, 8)]] {
            #expect(try digest(other) != known)
        }
    }

    @Test("the test's own SHA-256 knows the standard's examples")
    func ownDigestIsRight() {
        func hex(_ text: String) -> String {
            SHA256.digest(Array(text.utf8)).map { String(format: "%02x", $0) }.joined()
        }
        #expect(hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(
            hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
                == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        )
    }
}

/// SHA-256 after FIPS 180-4, so that digests are not compared with the library that made them.
private enum SHA256 {
    private static let primes = (2...311).filter { number in !(2..<number).contains { number.isMultiple(of: $0) } }

    /// The first 32 bits of the fraction of a prime's root.
    private static func fraction(_ root: (Double) -> Double, _ prime: Int) -> UInt32 {
        let value = root(Double(prime))
        return UInt32((value - value.rounded(.down)) * 4_294_967_296)
    }

    private static let constants = primes.prefix(64).map { fraction(cbrt, $0) }
    private static let start = primes.prefix(8).map { fraction({ $0.squareRoot() }, $0) }

    static func digest(_ message: [UInt8]) -> [UInt8] {
        var padded = message + [0x80]
        padded += [UInt8](repeating: 0, count: (120 - padded.count % 64) % 64)
        padded += littleEndianBytes(UInt64(message.count * 8)).reversed()
        var state = start
        for block in stride(from: 0, to: padded.count, by: 64) {
            var words = (0..<16).map { word in
                (0..<4).reduce(UInt32(0)) { $0 << 8 | UInt32(padded[block + 4 * word + $1]) }
            }
            for index in 16..<64 {
                let (a, b) = (words[index - 15], words[index - 2])
                let small = rotate(a, 7) ^ rotate(a, 18) ^ a >> 3
                let large = rotate(b, 17) ^ rotate(b, 19) ^ b >> 10
                words.append(words[index - 16] &+ small &+ words[index - 7] &+ large)
            }
            var s = state
            for index in 0..<64 {
                let choice = s[4] & s[5] ^ ~s[4] & s[6]
                let first =
                    s[7] &+ (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) &+ choice &+ constants[index]
                    &+ words[index]
                let majority = s[0] & s[1] ^ s[0] & s[2] ^ s[1] & s[2]
                let second = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) &+ majority
                s = [first &+ second, s[0], s[1], s[2], s[3] &+ first, s[4], s[5], s[6]]
            }
            state = zip(state, s).map { $0 &+ $1 }
        }
        return state.flatMap { littleEndianBytes($0).reversed() }
    }

    private static func rotate(_ word: UInt32, _ count: UInt32) -> UInt32 { word >> count | word << (32 - count) }
}
