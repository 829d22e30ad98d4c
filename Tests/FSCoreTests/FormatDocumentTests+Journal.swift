/// The journal's part of the format's document.
import Testing

@testable import FSCore
@testable import FSModules

extension FormatDocumentTests {
    @Test func journal() throws {
        let sizes: [String: UInt64] = [
            "smallest ring": JournalGeometry.minimumBlocks,
            "largest ring": JournalGeometry.maximumBlocks,
            "smallest extent": JournalGeometry.minimumExtentBlocks,
        ]
        for row in try document.table("journal") { #expect(row[1] == "\(sizes[row[0]] ?? 0)") }

        let run = BlockRun(BlockAddress(block: 1000), 1)
        let transaction = Transaction()
        transaction.put(Key(0x0102, .orphan, 0x0304), [7, 8, 9])
        transaction.publish(run)
        transaction.release(BlockRun(BlockAddress(block: 2000), 3))
        [UInt8](repeating: 0x5A, count: 4096).withView { transaction.stage(run, $0) }
        transaction.inodeDelta = -0x0506
        transaction.promisedDelta = 0x0708
        transaction.referencedDelta = 0x090A
        let buffer = ByteBuffer(count: TransactionCoder.size(transaction))
        TransactionCoder.encode(transaction, operation: 0x1122, into: buffer.bytes) { _, _ in }
        let encoded = contents(buffer)
        let updateSize = 28 + 3
        let headerSize = 64
        let dataOffset = headerSize + updateSize + 2 * 16
        try compare(
            "Journal transaction", encoded,
            [
                "bytes": .number(UInt64(encoded.count)), "data offset": .number(UInt64(dataOffset)),
                "updates": .number(1), "allocated runs": .number(1), "freed runs": .number(1),
                "staged runs": .number(1),
                "inode delta": .number(UInt64(bitPattern: -0x0506)),
                "promised delta": .number(0x0708), "operation": .number(0x1122),
                "head": .number(2), "referenced delta": .number(0x090A),
                "updates, runs": .anything,
            ])
        try compare(
            "Journal update", Array(encoded[headerSize..<headerSize + updateSize]),
            [
                "tree": .number(2), "key object": .number(0x0102), "key offset": .number(0x0304),
                "key type": .number(UInt64(ItemType.orphan.rawValue)), "action": .number(1),
                "value length": .number(3), "value": .bytes([7, 8, 9]),
            ], ["n": 3])
        #expect(
            Array(
                encoded[(headerSize + updateSize)...].prefix(
                    dataOffset - headerSize - updateSize + 16))
                == littleEndian([1000, 1, 2000, 3, 1000, 1]))

        let uuid = VolumeUUID.random()
        let record = ByteBuffer(count: 4096)
        record.bytes.copy(buffer.view.slice(0, 64), at: 128)
        let header = RecordHeader(
            kind: .transactions, internalUUID: uuid, incarnation: 0x2122, position: 0x2324,
            firstOperation: 0x2526, lastOperation: 0x2527, durableOperation: 0x2728,
            durableSequence: SuperblockSequence(0x292A), payloadBytes: 64)
        let hash = SipHash(key: NameHashKey(1, 2))
        header.seal(record.bytes, hash)
        var unsummed = Array(contents(record).prefix(128 + 64))
        unsummed.replaceSubrange(120..<128, with: [UInt8](repeating: 0, count: 8))
        try compare(
            "Journal record", Array(contents(record).prefix(128 + 64)),
            [
                "magic": .bytes(Array("AEGISJNL".utf8)), "version": .number(0), "kind": .number(1),
                "internal uuid": .bytes(bytes(uuid)), "incarnation": .number(0x2122),
                "position": .number(0x2324), "first operation": .number(0x2526),
                "last operation": .number(0x2527), "durable operation": .number(0x2728),
                "durable sequence": .number(0x292A), "payload bytes": .number(64),
                "count": .number(2), "sum": .number(unsummed.withView { hash.hash($0) }),
                "transactions": .anything,
            ])
    }
}
