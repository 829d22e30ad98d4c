/// The simulated device keeps its own contract: what is flushed stays, what is not may go, and
/// faults strike when they are due.
internal import FSCore
internal import FSTestSupport
internal import Testing

@Suite struct SimulatedDeviceTests {
    private func block(_ byte: UInt8) -> [UInt8] { [UInt8](repeating: byte, count: 4096) }

    private func write(_ byte: UInt8, to device: SimulatedBlockDevice, block number: UInt64) throws
    {
        try block(byte).withView { (view) throws(FSError) in
            try device.write(view, at: number * 4096)
        }
    }

    private func first(_ device: SimulatedBlockDevice, _ number: UInt64) -> UInt8 {
        device.bytes(at: number * 4096, count: 1)[0]
    }

    @Test func keepsWhatWasFlushed() throws {
        let device = SimulatedBlockDevice(byteCount: 1 << 20)
        var random = SeededRandom(seed: 1)
        try write(1, to: device, block: 3)
        try device.flush()
        try write(2, to: device, block: 3)
        try write(2, to: device, block: 4)
        #expect(device.eventCount == 4)
        let before = device.crashed(after: 1, .nothing, random: &random)
        #expect(first(before, 3) == 0)
        let flushed = device.crashed(after: 4, .nothing, random: &random)
        #expect(first(flushed, 3) == 1 && first(flushed, 4) == 0)
        let all = device.crashed(after: 4, .everything, random: &random)
        #expect(first(all, 3) == 2 && first(all, 4) == 2)
        // Both writes come and go, independently.
        var seen: Set<[UInt8]> = []
        for _ in 0..<200 {
            let crashed = device.crashed(after: 4, .anySubset, lost: .old, random: &random)
            seen.insert([first(crashed, 3), first(crashed, 4)])
        }
        #expect(seen == [[1, 0], [1, 2], [2, 0], [2, 2]])
    }

    @Test(arguments: [512, 4096]) func tearsAtSectors(sector: Int) throws {
        let device = SimulatedBlockDevice(byteCount: 1 << 20)
        var random = SeededRandom(seed: 2)
        try write(7, to: device, block: 0)
        var mixed = 0
        for _ in 0..<100 {
            let crashed = device.crashed(
                after: 1, .lastTorn, lost: .old, tornAt: sector, random: &random)
            let bytes = crashed.bytes(at: 0, count: 4096)
            for start in stride(from: 0, to: 4096, by: sector) {
                #expect(Set(bytes[start..<start + sector]).count == 1)
            }
            if Set(bytes).count == 2 { mixed += 1 }
        }
        #expect(sector == 512 ? mixed > 50 : mixed == 0)
    }

    @Test func aDroppedFlushIsNoBarrier() throws {
        let device = SimulatedBlockDevice(byteCount: 1 << 20)
        var random = SeededRandom(seed: 3)
        device.dropFlushes { _ in true }
        try write(1, to: device, block: 0)
        try device.flush()
        let crashed = device.crashed(after: device.eventCount, .nothing, random: &random)
        #expect(first(crashed, 0) == 0)
    }

    @Test func faultsStrikeWhenDue() throws {
        let device = SimulatedBlockDevice(byteCount: 1 << 20)
        device.inject(.init(.write, .fail, after: 2))
        try write(1, to: device, block: 0)
        #expect(throws: FSError.device(.write, errno: 5, offset: 4096)) {
            try write(1, to: device, block: 1)
        }
        try write(1, to: device, block: 1)
        device.inject(.init(.write, .loseWrite, after: 1))
        try write(9, to: device, block: 1)
        #expect(first(device, 1) == 1)
        device.inject(.init(.write, .misdirectWrite(blocks: 10), after: 1))
        try write(9, to: device, block: 1)
        #expect(first(device, 1) == 1 && first(device, 11) == 9)
        device.inject(.init(.write, .flipBit(3), after: 1))
        try write(0, to: device, block: 2)
        #expect(first(device, 2) == 8)
        device.inject(.init(.flush, .fail, after: 1, isSticky: true))
        for _ in 0..<3 {
            #expect(throws: FSError.device(.flush, errno: 5, offset: 0)) { try device.flush() }
        }
        device.clearFaults()
        try device.flush()
        #expect(device.counters.writes == 6 && device.counters.flushes == 4)
    }

    @Test func refusesWhatLiesOutside() throws {
        let device = SimulatedBlockDevice(byteCount: 8192)
        #expect(throws: FSError.self) { try write(1, to: device, block: 2) }
        let buffer = ByteBuffer(count: 8192)
        #expect(throws: FSError.self) { try device.read(into: buffer.bytes, at: 4096) }
    }
}
