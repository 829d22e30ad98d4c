/// The run: every rule of a stage in a directory of its own, one line for each.
internal import CCalls
internal import Glibc

/// How the filesystem under test is mounted when a rule runs. The first stage prepares what the
/// later ones find; each of them runs on a new mount of the same volume.
enum Stage: String, CaseIterable {
    case plain
    case readOnly = "ro"
    case noAccessTime = "noatime"
    case strictAccessTime = "strictatime"
    case restricted
    case remounted
}

struct Rule {
    var name: String
    var stage: Stage
    var body: (Context) -> Void
}

/// The table of all rules.
struct RuleTable {
    private(set) var rules: [Rule] = []
    var stage = Stage.plain

    mutating func rule(_ name: String, _ body: @escaping (Context) -> Void) {
        rules.append(Rule(name: name, stage: stage, body: body))
    }

    static func all() -> RuleTable {
        var table = RuleTable()
        addPathRules(to: &table)
        addPermissionRules(to: &table)
        addOwnershipRules(to: &table)
        addOpenRules(to: &table)
        addRenameRules(to: &table)
        addLinkRules(to: &table)
        addTimeRules(to: &table)
        addUnlinkedRules(to: &table)
        addDataRules(to: &table)
        addSpaceRules(to: &table)
        addMappingRules(to: &table)
        addAttributeRules(to: &table)
        addACLRules(to: &table)
        addLockRules(to: &table)
        addNotificationRules(to: &table)
        addSpecialFileRules(to: &table)
        addDirectoryRules(to: &table)
        addFlagRules(to: &table)
        addHandleRules(to: &table)
        addProcessRules(to: &table)
        addMountRules(to: &table)
        return table
    }
}

enum ConformanceRun {
    static func run(_ arguments: [String]) -> Int32 {
        guard arguments.count >= 2, geteuid() == 0,
            let stage = Stage(rawValue: arguments.count > 2 ? arguments[2] : "plain")
        else {
            say("usage, as root: aegisfs-conformance DIRECTORY [STAGE [NAME-PREFIX]]")
            return 2
        }
        let prefix = arguments.count > 3 ? arguments[3] : ""
        let base = arguments[1]
        // Whoever started the run may have blocked some.
        var signals = sigset_t()
        sigemptyset(&signals)
        sigprocmask(SIG_SETMASK, &signals, nil)
        // A write beyond the size limit and a broken lease are heard as errors instead.
        signal(SIGXFSZ, SIG_IGN)
        signal(SIGIO, SIG_IGN)
        signal(SIGPIPE, SIG_IGN)
        var failures = 0
        let rules = RuleTable.all().rules
        let twice = Dictionary(grouping: rules, by: \.name).filter { $1.count > 1 }
        guard twice.isEmpty else {
            say("two rules have one name: \(twice.keys)")
            return 2
        }
        for (number, rule) in rules.enumerated()
        where rule.stage == stage && rule.name.hasPrefix(prefix) {
            let line = outcome(of: rule, base + "/rule\(number)", base)
            if line.hasPrefix("FAIL") { failures += 1 }
            say(line)
        }
        return failures == 0 ? 0 : 1
    }

    private static func outcome(of rule: Rule, _ directory: String, _ base: String) -> String {
        let context = Context(base: base)
        // A rule that waits for ever ends the run; its name is then the missing one.
        alarm(60)
        if rule.stage != .readOnly {
            context.ok(cc_mkdir(HERE, directory, 0o777))
            context.ok(cc_chmod(HERE, directory, 0o777))
            context.ok(cc_chdir(directory))
        } else {
            context.ok(cc_chdir(base + "/kept"))
        }
        _ = cc_umask(0o022)
        if context.failure == nil { rule.body(context) }
        context.becomeRoot()
        _ = cc_umask(0o022)
        _ = cc_chdir("/")
        _ = cc_close_from(3)
        if rule.stage != .readOnly { FileTree.remove(directory) }
        alarm(0)
        if let failure = context.failure { return "FAIL \(rule.name): \(failure)" }
        if let reason = context.skipReason { return "skip \(rule.name): \(reason)" }
        return "ok \(rule.name)"
    }

    private static func say(_ line: String) {
        let text = line + "\n"
        text.withCString { _ = cc_write(1, $0, text.utf8.count) }
    }
}

/// Removing what a rule left behind.
enum FileTree {
    static func remove(_ path: String) { remove(HERE, Array(path.utf8CString)) }

    /// By descriptor and bytes: a name need not be a `String`, and a path may be too long.
    private static func remove(_ parent: Int32, _ name: [CChar]) {
        if cc_unlink(parent, name, 0) >= 0 { return }
        let opened = cc_open(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0)
        if opened >= 0 {
            let fd = Int32(opened)
            var flags: Int32 = 0
            _ = cc_ioctl(fd, Flag.get, &flags)
            flags &= ~InodeFlag.all
            _ = cc_ioctl(fd, Flag.set, &flags)
            let entries = DirectoryListing.read(fd)
            for entry in entries where entry.name != "." && entry.name != ".." {
                remove(fd, entry.bytes)
            }
            _ = cc_close(fd)
        }
        if cc_unlink(parent, name, Flag.removeDirectory) < 0 { _ = cc_unlink(parent, name, 0) }
    }
}
