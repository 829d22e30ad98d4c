/// Which snapshots a rule of retention keeps: the newest one of each of the last hours, days, weeks, months
/// and years that have any, the last few, and what nobody may delete.
///
/// A snapshot stays if any rule keeps it. Periods without a snapshot do not count, so a volume that was not
/// used for a month keeps what it had. Weeks are those of ISO 8601; all periods are those of UTC.
struct Retention: Codable, Sendable {
    enum Period: String, Codable, CaseIterable, Sendable {
        case last, hourly, daily, weekly, monthly, yearly

        var plural: String {
            switch self {
            case .last: "snapshots"
            case .hourly: "hours"
            case .daily: "days"
            case .weekly: "weeks"
            case .monthly: "months"
            case .yearly: "years"
            }
        }

        /// Names the period into which a moment falls.
        func name(_ seconds: Int64) -> String {
            let text = TimeFormatter.utc(seconds)
            return switch self {
            case .last: text
            case .hourly: String(text.prefix(13))
            case .daily: String(text.prefix(10))
            case .weekly: TimeFormatter.week(seconds)
            case .monthly: String(text.prefix(7))
            case .yearly: String(text.prefix(4))
            }
        }
    }

    struct Candidate: Equatable, Sendable {
        var name: String
        /// Seconds since 1970.
        var created: Int64
        var isHeld = false
        var isProtected = false
    }

    /// How many of each, by the period's name.
    var keep: [String: Int] = [:]

    /// The rules that keep each of `candidates`, such as `daily 3`; none: it goes.
    func reasons(_ candidates: [Candidate]) -> [[String]] {
        var reasons = candidates.map { candidate in
            (candidate.isHeld ? ["held"] : []) + (candidate.isProtected ? ["protected"] : [])
        }
        let newestFirst = candidates.indices.sorted {
            (candidates[$0].created, $0) > (candidates[$1].created, $1)
        }
        for period in Period.allCases {
            let count = keep[period.rawValue] ?? 0
            var kept = 0
            var last: String?
            for index in newestFirst where kept < count {
                let name = period.name(candidates[index].created)
                if period != .last, name == last { continue }
                last = name
                kept += 1
                reasons[index].append("\(period.rawValue) \(kept)")
            }
        }
        return reasons
    }
}
