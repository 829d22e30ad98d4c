/// The program: everything else is in `Program`, since globals of this file would belong to the
/// main actor.
internal import Glibc

exit(Program.run(CommandLine.arguments))
