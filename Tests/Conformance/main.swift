/// `aegisfs-conformance DIRECTORY [STAGE]`: runs the rules on whatever filesystem DIRECTORY is on.
internal import Glibc

exit(ConformanceRun.run(CommandLine.arguments))
