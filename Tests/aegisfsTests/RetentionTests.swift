/// Which snapshots the rules of `snapshot prune` keep.
import Testing

@testable import aegisfs

@Suite struct RetentionTests {
    private func candidates(_ times: [String]) throws -> [Retention.Candidate] {
        try times.map { time in
            Retention.Candidate(name: time, created: try #require(TimeFormatter.parseUTC(time)))
        }
    }
    private func kept(_ times: [String], _ keep: [String: Int]) throws -> [String: [String]] {
        let candidates = try candidates(times)
        let reasons = Retention(keep: keep).reasons(candidates)
        return Dictionary(
            uniqueKeysWithValues: zip(candidates.map(\.name), reasons).filter { !$1.isEmpty })
    }

    @Test func theNewestOfEachPeriodStays() throws {
        let times = [
            "2029-12-31T23:00:00Z", "2030-01-01T00:30:00Z", "2030-01-01T01:10:00Z",
            "2030-01-01T01:50:00Z", "2030-01-02T05:00:00Z", "2030-01-06T05:00:00Z",
            "2030-01-07T05:00:00Z", "2030-02-01T00:00:00Z",
        ]
        #expect(try kept(times, ["last": 2]) == [times[7]: ["last 1"], times[6]: ["last 2"]])
        // Hours without a snapshot do not count.
        #expect(
            try kept(times, ["hourly": 5]).keys.sorted()
                == [times[3], times[4], times[5], times[6], times[7]])
        #expect(
            try kept(times, ["daily": 10]).keys.sorted()
                == [times[0], times[3], times[4], times[5], times[6], times[7]])
        // 2029-12-31 is the Monday of the week in which the year ends.
        #expect(
            try kept(times, ["weekly": 10]) == [
                times[5]: ["weekly 3"], times[6]: ["weekly 2"], times[7]: ["weekly 1"],
            ])
        #expect(try kept(times, ["monthly": 2]).keys.sorted() == [times[6], times[7]])
        #expect(
            try kept(times, ["yearly": 2]) == [times[0]: ["yearly 2"], times[7]: ["yearly 1"]])
        #expect(
            try kept(times, ["yearly": 1, "last": 1]) == [times[7]: ["last 1", "yearly 1"]])
        #expect(try kept(times, ["daily": 0]).isEmpty)
    }

    @Test func heldAndProtectedOnesStay() throws {
        var all = try candidates(["2030-01-01", "2030-01-02", "2030-01-03"])
        all[0].isHeld = true
        all[1].isProtected = true
        #expect(Retention(keep: ["last": 1]).reasons(all) == [["held"], ["protected"], ["last 1"]])
    }

    /// A snapshot each hour of three years: the rules leave what they count, each run anew.
    @Test func rulesApplyAgainAndAgain() throws {
        let start = try #require(TimeFormatter.parseUTC("2027-03-05"))
        let keep = ["hourly": 24, "daily": 7, "weekly": 4, "monthly": 12, "yearly": 5]
        var present: [Retention.Candidate] = []
        for hour in 0..<(3 * 365 * 24) {
            present.append(
                Retention.Candidate(name: "\(hour)", created: start + Int64(hour) * 3600))
            if hour % 24 == 23 || hour < 100 {
                let reasons = Retention(keep: keep).reasons(present)
                present = zip(present, reasons).filter { !$1.isEmpty }.map(\.0)
            }
        }
        let reasons = Retention(keep: keep).reasons(present)
        for (period, count) in keep where period != "yearly" {
            let kept = reasons.filter { $0.contains { $0.hasPrefix(period) } }.count
            #expect(kept == count, "\(period)")
        }
        #expect(present.count <= keep.values.reduce(0, +))
    }
}
