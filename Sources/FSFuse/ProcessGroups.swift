/// The groups of a process that has sent a request; the request itself names one at most.
internal import Glibc

enum ProcessGroups {
    /// Whether `group` is the process's group for files or one of its further ones (proc(5), status).
    /// False for a process that is gone: what is unknown grants nothing.
    static func contain(_ group: UInt32, process: Int32) -> Bool {
        guard let file = fopen("/proc/\(process)/status", "re") else { return false }
        defer { fclose(file) }
        var line: UnsafeMutablePointer<CChar>?
        var room = 0
        defer { free(line) }
        while getline(&line, &room, file) > 0, let text = line {
            let words = String(cString: text).split(whereSeparator: \.isWhitespace)
            let groups =
                switch words.first {
                // Real, effective, saved, and the one for files.
                case "Gid:": words.dropFirst(4)
                case "Groups:": words.dropFirst()
                default: words[..<0]
                }
            if groups.contains(where: { UInt32($0) == group }) { return true }
        }
        return false
    }
}
