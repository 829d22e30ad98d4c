/// A tree of every kind of inode through a mount, what is done to it, and whether two are the same: for
/// whatever copies trees.
internal import FSTestSupport
internal import Foundation
internal import Testing

enum ManyKinds {
    @discardableResult
    static func shell(_ line: String) throws -> String {
        try require(["/bin/bash", "-o", "pipefail", "-c", line])
    }

    /// Kinds of inodes of which a copy is easily not the same.
    static func fill(_ directory: String) throws {
        try shell(
            """
            cd \(directory)
            mkdir -p a/b/c empty && echo small > a/small && ln a/small a/b/link
            head -c 3000000 /dev/urandom > a/big && truncate -s 50M a/sparse
            printf x | dd of=a/sparse bs=1 seek=20000000 conv=notrunc status=none
            ln -s ../a/small a/symlink && mkfifo a/fifo && mknod a/null c 1 3
            python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.bind("a/socket")'
            setfattr -n user.colour -v green a/big
            setfattr -n trusted.x -v "$(head -c 20000 /dev/zero | tr '\\0' x)" a
            setfacl -m u:7:rw a/small && setfacl -d -m u:8:rwx a/b
            chown 3:4 a/big && chmod 4755 a/big && touch -d '1999-12-31 23:59:59.123456789' a/b
            touch a/promised && fallocate -n -l 1M a/promised && echo fixed > a/fixed && chattr +i a/fixed
            cp a/big a/reflink
            """)
    }
    static func change(_ directory: String) throws {
        try shell(
            """
            cd \(directory)
            chattr -i a/fixed && mv a/fixed a/b/c/fixed && chattr +i a/b/c/fixed
            mv a/b moved && mkdir a/b && mv moved a/b/inner && rm a/fifo && mkfifo a/null2
            printf changed | dd of=a/big bs=1 seek=1000000 conv=notrunc status=none
            fallocate -p -o 0 -l 1M a/reflink && truncate -s 100 a/sparse && rm -r empty
            echo more >> a/small && setfattr -x user.colour a/big && echo new > new
            touch -d '2001-02-03 04:05:06.000000007' a
            """)
    }

    /// Nothing to do for rsync between two directories; with a control that it would say so.
    static func expectSame(_ a: URL, _ b: URL) throws {
        func difference() throws -> String {
            try require([
                "rsync", "-aHAXnci", "--delete", "--modify-window=-1", a.path + "/", b.path + "/",
            ])
        }
        #expect(try difference() == "")
        let control = a.appendingPathComponent("control").path
        if FileManager.default.createFile(atPath: control, contents: Data()) {
            #expect(try difference() != "")
            try FileManager.default.removeItem(atPath: control)
        } else {
            // Both are read-only: another directory must differ.
            #expect(
                try require(["rsync", "-aHAXnci", "--delete", "/etc/", b.path + "/"]) != "")
        }
    }
}
