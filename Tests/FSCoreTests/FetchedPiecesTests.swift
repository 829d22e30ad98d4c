/// Pieces that are fetched past the page cache are what a read would give.
import FSModules
import FSTestSupport
import Foundation
import Synchronization
import Testing

@testable import FSCore

@Suite struct FetchedPiecesTests {
    private static let block = DiskFormat.blockSize

    /// A file whose blocks begin with their number times a million, and its descriptors: a usual one, and
    /// one past the page cache.
    private func withFile(
        blocks: Int, _ body: (_ path: String, _ usual: Int32, _ direct: Int32) throws -> Void
    ) throws {
        try withTemporaryDirectory { folder in
            let path = folder.appendingPathComponent("file").path
            let usual = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
            try #require(usual >= 0)
            defer { close(usual) }
            for index in 0..<blocks { write(usual, block: index, version: 0) }
            try #require(fdatasync(usual) == 0)
            // O_DIRECT; where there is no such thing the usual way is as good.
            var direct = open(path, O_RDONLY | O_CLOEXEC | 0o40000)
            if direct < 0 { direct = open(path, O_RDONLY | O_CLOEXEC) }
            try #require(direct >= 0)
            defer { close(direct) }
            try body(path, usual, direct)
        }
    }

    private func write(_ descriptor: Int32, block: Int, version: UInt64) {
        let buffer = ByteBuffer(count: Self.block)
        buffer.bytes.store(UInt64(block) * 1_000_000 + version, at: 0)
        buffer.bytes.store(version, at: Self.block - 8)
        let count = pwrite(
            descriptor, buffer.view.unsafeBytes.baseAddress, Self.block, off_t(block * Self.block))
        #expect(count == Self.block)
    }

    /// The version of a block that was read; nil if it is another block's, or half of one.
    private func version(_ view: ByteView, block: Int) -> UInt64? {
        let first = view.u64(0)
        guard first / 1_000_000 == UInt64(block), first % 1_000_000 == view.u64(Self.block - 8)
        else { return nil }
        return first % 1_000_000
    }

    @Test func isWhatTheFileHas() throws {
        try withFile(blocks: 512) { _, usual, direct in
            let pieces = FetchedPieces()
            defer { pieces.close() }
            let buffer = ByteBuffer(count: 256 * Self.block)
            #expect(pieces.take(into: buffer.bytes, at: 0) == (0, buffer.count))
            // Blocks 100 to 299, in one piece.
            #expect(pieces.fetch(100 << 12..<300 << 12, from: direct))
            #expect(pieces.take(into: buffer.bytes, at: 90 << 12) == (0, 10 << 12))
            #expect(pieces.take(into: buffer.bytes.slice(0, 8 << 12), at: 90 << 12) == (0, 8 << 12))
            #expect(pieces.take(into: buffer.bytes, at: 110 << 12) == (190 << 12, 0))
            for index in 0..<190 {
                let view = buffer.view.slice(index << 12, Self.block)
                #expect(version(view, block: 110 + index) == 0)
            }
            // The rest of the piece, and what was written since.
            #expect(
                pieces.take(into: buffer.bytes.slice(0, 10 << 12), at: 100 << 12) == (10 << 12, 0))
            #expect(pieces.take(into: buffer.bytes, at: 100 << 12).filled == 0)
            #expect(pieces.fetch(200 << 12..<300 << 12, from: direct))
            write(usual, block: 250, version: 7)
            pieces.forget(250 << 12..<251 << 12)
            #expect(pieces.take(into: buffer.bytes, at: 240 << 12).filled == 0)
            // Behind the end of the file is nothing to be had.
            #expect(pieces.fetch(500 << 12..<600 << 12, from: direct))
            #expect(pieces.take(into: buffer.bytes, at: 500 << 12).filled == 0)
            #expect(!pieces.fetch(0..<UInt64(FetchedPieces.capacity) * 2, from: direct))
        }
    }

    /// Readers who fetch what they want beside writers: nobody gets a block as it was before a write that
    /// had returned.
    @Test func besideWriters() throws {
        let blocks = 1024
        try withFile(blocks: blocks) { _, usual, direct in
            let pieces = FetchedPieces()
            defer { pieces.close() }
            let begun = (0..<blocks).map { _ in Box() }
            let written = (0..<blocks).map { _ in Box() }
            let wrong = Box()
            let taken = Box()
            let threads = (0..<5).map { number in
                WorkerThread {
                    var random = SeededRandom(seed: UInt64(number))
                    let buffer = ByteBuffer(count: 300 * Self.block)
                    for round in 1...(number < 2 ? 4000 : 400) as ClosedRange<UInt64> {
                        let start = random.below(blocks - 300)
                        if number < 2 {
                            // Each block has one writer.
                            let block = start & ~1 + number
                            begun[block].value.store(round, ordering: .sequentiallyConsistent)
                            write(usual, block: block, version: round)
                            pieces.forget(UInt64(block) << 12..<UInt64(block + 1) << 12)
                            written[block].value.store(round, ordering: .sequentiallyConsistent)
                            continue
                        }
                        let end = start + random.integer(in: 1...300)
                        _ = pieces.fetch(UInt64(start) << 12..<UInt64(end) << 12, from: direct)
                        var position = start
                        while position < end {
                            let before = (position..<end).map {
                                written[$0].value.load(ordering: .sequentiallyConsistent)
                            }
                            let (filled, missing) = pieces.take(
                                into: buffer.bytes.slice(0, (end - position) << 12),
                                at: UInt64(position) << 12)
                            for index in 0..<filled >> 12 {
                                let view = buffer.view.slice(index << 12, Self.block)
                                let found = version(view, block: position + index)
                                // Half of each is what a write may leave while it goes on.
                                let now = begun[position + index].value.load(
                                    ordering: .sequentiallyConsistent)
                                if found.map({ $0 < before[index] }) ?? (now == before[index]) {
                                    wrong.value.add(1, ordering: .relaxed)
                                }
                            }
                            taken.value.add(UInt64(filled >> 12), ordering: .relaxed)
                            position += (filled + missing) >> 12
                        }
                    }
                }
            }
            for thread in threads { thread.join() }
            #expect(wrong.value.load(ordering: .relaxed) == 0)
            #expect(taken.value.load(ordering: .relaxed) > 0)
        }
    }

    /// Who waits for a piece goes on when it is forgotten before a helper came to it.
    @Test func nobodyWaitsForWhatIsForgotten() throws {
        try withFile(blocks: 4) { _, _, direct in
            let pieces = FetchedPieces()
            defer { pieces.close() }
            for round in 0..<2000 {
                #expect(pieces.fetch(0..<4 << 12, from: direct))
                let ended = Box()
                let reader = WorkerThread {
                    let buffer = ByteBuffer(count: Self.block)
                    withExtendedLifetime(buffer) { _ = pieces.take(into: buffer.bytes, at: 0) }
                    ended.value.store(1, ordering: .sequentiallyConsistent)
                }
                for _ in 0..<round % 50 { sched_yield() }
                pieces.forget(0..<4 << 12)
                let deadline = monotonicNanoseconds() + 10_000_000_000
                while ended.value.load(ordering: .sequentiallyConsistent) == 0,
                    monotonicNanoseconds() < deadline
                {
                    sched_yield()
                }
                let isStuck = ended.value.load(ordering: .sequentiallyConsistent) == 0
                // What another piece needs wakes everybody.
                if isStuck { _ = pieces.fetch(0..<4 << 12, from: direct) }
                reader.join()
                try #require(!isStuck, "round \(round)")
            }
        }
    }

    private final class Box: Sendable { let value = Atomic<UInt64>(0) }

    /// A device hands out what it was told to fetch, however the reads are cut.
    @Test func aDeviceFetches() throws {
        try withFile(blocks: 2048) { path, usual, _ in
            let device = try FileBlockDevice(path: path, access: .readWrite)
            defer { device.close() }
            var random = SeededRandom(seed: 3)
            for round in 1...40 as ClosedRange<UInt64> {
                posix_fadvise(usual, 0, 0, POSIX_FADV_DONTNEED)
                let start = random.below(1500)
                device.prefetch(
                    at: UInt64(start) << 12, count: UInt64(random.integer(in: 1...500)) << 12)
                var changed = -1
                if random.below(2) == 0 {
                    changed = start + random.below(20)
                    let buffer = ByteBuffer(count: Self.block)
                    buffer.bytes.store(UInt64(changed) * 1_000_000 + round, at: 0)
                    buffer.bytes.store(round, at: Self.block - 8)
                    try device.write(buffer.view, at: UInt64(changed) << 12)
                }
                let from = max(0, start - random.below(30))
                let target = ByteBuffer(count: random.integer(in: 1...540) << 12)
                try device.read(into: target.bytes, at: UInt64(from) << 12)
                for index in 0..<target.count >> 12 {
                    let found = version(
                        target.view.slice(index << 12, Self.block), block: from + index)
                    #expect(found != nil && (from + index != changed || found == round))
                }
            }
        }
    }
}
