/// `aegisfs-conformance DIRECTORY [STAGE]` runs the rules on whatever filesystem DIRECTORY is on;
/// `aegisfs-conformance compare DIRECTORY DIRECTORY SEED CALLS` makes random calls on two.
internal import Glibc

let arguments = CommandLine.arguments
exit(
    arguments.dropFirst().first == "compare"
        ? DifferentialRun.run(Array(arguments.dropFirst(2))) : ConformanceRun.run(arguments))
