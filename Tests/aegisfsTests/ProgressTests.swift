/// The arithmetic of progress: rates, remaining time, what is never shown.
import Testing

@testable import aegisfs

@Suite struct ProgressTests {
    @Test func aSteadyRateGivesTheRemainingTime() throws {
        var meter = ProgressMeter()
        for second in 0...10 {
            meter.update(done: UInt64(second) * 100, total: 4000, seconds: Double(second))
        }
        #expect(meter.percent == 25)
        #expect(try #require(meter.rate) == 100)
        #expect(meter.remainingSeconds == 30)
    }

    @Test func theRateIsThatOfTheWindow() throws {
        var meter = ProgressMeter()
        // A fast start that is long over.
        meter.update(done: 0, total: 100_000, seconds: 0)
        meter.update(done: 50_000, total: 100_000, seconds: 1)
        for second in 2...60 {
            meter.update(
                done: 50_000 + UInt64(second) * 10, total: 100_000, seconds: Double(second))
        }
        let rate = try #require(meter.rate)
        #expect(rate > 9 && rate < 12, "\(rate)")
    }

    @Test func whatIsNotKnownIsNotShown() {
        var meter = ProgressMeter()
        #expect(meter.rate == nil && meter.remainingSeconds == nil && meter.percent == 0)
        meter.update(done: 0, total: 1000, seconds: 5)
        #expect(meter.rate == nil)
        meter.update(done: 900, total: 1000, seconds: 5.2)
        #expect(meter.remainingSeconds == nil, "a fifth of a second is no basis")
        meter.update(done: 900, total: 1000, seconds: 40)
        meter.update(done: 900, total: 1000, seconds: 60)
        meter.update(done: 900, total: 1000, seconds: 80)
        #expect(meter.remainingSeconds == nil, "nothing advances")
    }

    @Test func neverAboveAHundredAndNeverTooEarly() {
        var meter = ProgressMeter()
        meter.update(done: 1500, total: 1000, seconds: 0)
        #expect(meter.percent == 100)
        meter.update(done: UInt64.max - 1, total: UInt64.max, seconds: 1)
        #expect(meter.percent == 99)
    }

    @Test func pausesDoNotCount() throws {
        var meter = ProgressMeter()
        meter.update(done: 0, total: 1000, seconds: 0)
        meter.update(done: 100, total: 1000, seconds: 2)
        meter.pause(seconds: 2)
        meter.resume(seconds: 1002)
        meter.update(done: 200, total: 1000, seconds: 1004)
        #expect(try #require(meter.rate) == 50)
        #expect(meter.remainingSeconds == 16)
    }

    @Test func startingOverForgetsTheOldRate() {
        var meter = ProgressMeter()
        meter.update(done: 0, total: 1000, seconds: 0)
        meter.update(done: 1000, total: 1000, seconds: 10)
        meter.update(done: 0, total: 1000, seconds: 11)
        #expect(meter.rate == nil && meter.percent == 0)
    }

    @Test func durationsAndTables() {
        #expect(TimeFormatter.duration(7) == "0:07")
        #expect(TimeFormatter.duration(754) == "12:34")
        #expect(TimeFormatter.duration(10_805) == "3:00:05")
        #expect(TimeFormatter.utc(86_400) == "1970-01-02T00:00:00Z")
        var table = TextTable([("name", .left), ("size", .right), ("where", .left)])
        table.add(["a", "10", "/x"])
        table.add(["long", "5", "/yy"])
        #expect(table.text(header: true) == "NAME  SIZE  WHERE\na       10  /x\nlong     5  /yy\n")
        #expect(table.text(header: false) == "a     10  /x\nlong   5  /yy\n")
    }
}
