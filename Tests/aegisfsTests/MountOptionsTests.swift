/// The words of `mount -o`, and the kernel's table of mounts.
import FSCore
import Testing

@testable import aegisfs

@Suite struct MountOptionsTests {
    @Test func theLastWordWins() throws {
        let options = try MountOptions([
            "ro,nosuid,noatime,commit=7", "rw,x-systemd.automount,nofail",
        ])
        #expect(!options.isReadOnly)
        #expect(options.nosuid)
        #expect(options.accessTime == .none)
        #expect(options.commitSeconds == 7)
        #expect(!options.words.contains("nofail"))
    }
    @Test(arguments: ["bogus", "commit=0", "commit=x", "cache=1K", "ro=1"])
    func unknownWordsAreNamed(word: String) {
        do throws(Failure) {
            _ = try MountOptions([word])
            Issue.record("'\(word)' was accepted")
        } catch {
            #expect(error.code == .usage)
            #expect(error.message.contains(word.split(separator: "=")[0]))
        }
    }
    @Test func sloppyPassesOverThem() throws {
        #expect(try MountOptions(["bogus,ro"], sloppy: true).isReadOnly)
    }
    @Test func wordsOfOtherProgramsAreIgnored() throws {
        let options = try MountOptions([
            "defaults,auto,noauto,nofail,_netdev,user=joe,users,owner,x-gvfs-show,X-mount.mkdir",
            "comment=a,dev,suid,exec,relatime,lazytime,default_permissions",
        ])
        #expect(options.words == ["dev", "suid", "exec", "relatime"])
        #expect(!options.nosuid && !options.nodev && !options.noexec)
        #expect(options.accessTime == .relative)
    }
    @Test func valuesReachTheVolume() throws {
        let options = try MountOptions(["commit=30,cache=64M,strictatime,ro,fsname=label"])
        #expect(options.openOptions.checkpointIntervalMilliseconds == 30_000)
        #expect(options.openOptions.cacheBytes == 64 << 20)
        #expect(options.openOptions.accessTime == .strict)
        #expect(options.openOptions.readOnly)
        #expect(options.sourceName == "label")
    }
    @Test func whatIsHandedOnMeansTheSame() throws {
        let options = try MountOptions(["ro,nosuid,nofail,noatime,sync", "async,rw,commit=9"])
        #expect(try MountOptions(options.words) == options)
        #expect(!options.sync)
    }
}

@Suite struct MountTableTests {
    private let text = """
        22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
        45 22 0:41 / /mnt/with\\040blank rw,nosuid - fuse.aegisfs /tmp/a\\134b.img ro,user_id=0
        46 22 0:42 / /mnt/x rw shared:2 master:3 - tmpfs none rw
        47 46 0:43 / /mnt/x rw - fuse.aegisfs /b.img rw
        nonsense
        48 22

        """

    @Test func linesAreTakenApart() throws {
        let table = MountTable(parsing: Array(text.utf8))
        #expect(table.entries.count == 4)
        let entry = try #require(table.entry(at: "/mnt/with blank"))
        #expect(entry.id == 45 && entry.device == "0:41" && entry.isAegisFS)
        #expect(entry.source == "/tmp/a\\b.img")
        #expect(entry.options == ["rw", "nosuid"])
        #expect(entry.isReadOnly)
    }
    @Test func theTopmostMountCounts() {
        let table = MountTable(parsing: Array(text.utf8))
        #expect(table.entry(at: "/mnt/x")?.id == 47)
        #expect(table.entry(at: "/mnt") == nil)
    }
    @Test func pathsAreBytes() {
        #expect(!Paths.areEqual("e\u{301}", "\u{e9}"))
        #expect(Paths.isInside("/a/b", "/a") && Paths.isInside("/a", "/a"))
        #expect(!Paths.isInside("/ab", "/a") && Paths.isInside("/x", "/"))
        #expect(Paths.split("/a/b") == ("/a", "b"))
        #expect(Paths.split("a") == (".", "a") && Paths.split("/a") == ("/", "a"))
    }
}
