/// Times and durations: local ISO 8601 for people, RFC 3339 in UTC for JSON.
internal import Glibc

enum TimeFormatter {
    static func local(_ seconds: Int64) -> String {
        var time = time_t(seconds)
        var fields = tm()
        localtime_r(&time, &fields)
        return format(&fields, "%Y-%m-%dT%H:%M:%S%z")
    }

    static func utc(_ seconds: Int64) -> String {
        var time = time_t(seconds)
        var fields = tm()
        gmtime_r(&time, &fields)
        return format(&fields, "%Y-%m-%dT%H:%M:%SZ")
    }

    /// Seconds since 1970 of `2031-12-31` or `2031-12-31T23:00:00Z`; nil if it is no date.
    static func parseUTC(_ text: String) -> Int64? {
        guard
            let match = text.wholeMatch(
                of: /(\d{4})-(\d\d)-(\d\d)(T(\d\d):(\d\d):(\d\d)Z)?/)
        else { return nil }
        func number(_ text: Substring?) -> Int32 { text.flatMap { Int32($0) } ?? 0 }
        var fields = tm()
        fields.tm_year = number(match.1) - 1900
        fields.tm_mon = number(match.2) - 1
        fields.tm_mday = number(match.3)
        fields.tm_hour = number(match.5)
        fields.tm_min = number(match.6)
        fields.tm_sec = number(match.7)
        let seconds = Int64(timegm(&fields))
        // A day that does not exist comes out as another one.
        return utc(seconds).hasPrefix(text.prefix(10)) ? seconds : nil
    }

    /// The week of ISO 8601 in UTC: `2031-W07`.
    static func week(_ seconds: Int64) -> String {
        var time = time_t(seconds)
        var fields = tm()
        gmtime_r(&time, &fields)
        return format(&fields, "%G-W%V")
    }

    /// `0:07`, `12:34`, `3:00:05`.
    static func duration(_ seconds: UInt64) -> String {
        func twoDigits(_ value: UInt64) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60)
        if hours > 0 { return "\(hours):\(twoDigits(minutes)):\(twoDigits(rest))" }
        return "\(minutes):\(twoDigits(rest))"
    }

    private static func format(_ fields: inout tm, _ pattern: String) -> String {
        var buffer = [CChar](repeating: 0, count: 64)
        let length = strftime(&buffer, buffer.count, pattern, &fields)
        return String(decoding: buffer.prefix(length).map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}
