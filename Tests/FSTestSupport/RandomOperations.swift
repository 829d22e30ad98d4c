/// Seeded random operations on a model and on a real filesystem side by side.
///
/// A session draws an operation, asks both, and compares the answers; now and then it compares the
/// whole trees. The same seed and profile give the same operations in every process. A difference
/// ends the session with an error that names the seed, the number of the operation, and the last
/// operations before it.
/// What kinds of operation a session may draw.
public struct OperationProfile: Sendable {
    /// Owners of new inodes; through a mount they are always the caller's.
    public var setsOwnersOnCreation = true
    /// O_TMPFILE.
    public var makesUnnamed = true
    public var leavesWhiteouts = true
    /// What is written can be compressed.
    public var isCompressible = false
    /// So few different contents are written; nil: as many as there are writes.
    public var contents: UInt64?
    public var largestExtendedAttribute = 65536
    public var largestWrite = 300 << 10
    public var largestOffset = 4 << 20
    /// About how many inodes there may be.
    public var population = 150

    public init() {}

    /// Through the kernel, on any filesystem that has extended attributes.
    public static var mounted: OperationProfile {
        var profile = OperationProfile()
        profile.setsOwnersOnCreation = false
        return profile
    }
}

/// The real filesystem and the model differ.
public struct Divergence: Error, CustomStringConvertible {
    public var seed: UInt64
    public var operationNumber: Int
    public var problem: String
    public var trace: [String]
    /// What the real filesystem answered, if it was one answer that differed.
    public var outcome: Outcome?

    public var description: String {
        "seed \(seed), operation \(operationNumber): \(problem)\nlast operations:\n"
            + trace.map { "  " + $0 }.joined(separator: "\n")
    }
}

public final class RandomSession {
    public let seed: UInt64
    public private(set) var model: ReferenceFileSystem
    public private(set) var operationCount = 0
    public private(set) var lastOperation: FileOperation?
    /// How many operations were refused (by both sides); a session without any tests too little.
    public private(set) var refusalCount = 0
    /// Compare whole trees after this many operations.
    public var compareEvery = 500
    /// Called after every operation with its number, from 1 on: the place to checkpoint, remount
    /// or check.
    public var betweenOperations: ((Int) throws -> Void)?

    private let executor: any OperationExecutor
    private var generator: OperationGenerator
    private var trace: [String] = []
    private static let traceLength = 40

    public init(
        seed: UInt64, profile: OperationProfile = OperationProfile(),
        model: ReferenceFileSystem = ReferenceFileSystem(), executor: any OperationExecutor
    ) {
        self.seed = seed
        self.model = model
        self.executor = executor
        generator = OperationGenerator(seed: seed, profile: profile)
    }

    public func run(_ count: Int) throws {
        for _ in 0..<count {
            try step()
            if operationCount % compareEvery == 0 { try compareTrees() }
            try betweenOperations?(operationCount)
        }
    }

    public func compareTrees() throws {
        do {
            let actual = try executor.treeView()
            if let difference = actual.firstDifference(fromExpected: model.view) {
                throw divergence("trees differ: \(difference)")
            }
        } catch let error as InconsistentTree {
            throw divergence("\(error)")
        }
    }

    /// Nothing is held any more, in the model; the executor does the same on its side.
    public func dropHandles() { model.dropHandles() }

    /// The error that a caller throws for a fault that it finds itself.
    public func divergence(_ problem: String) -> Divergence {
        Divergence(seed: seed, operationNumber: operationCount, problem: problem, trace: trace)
    }

    private func step() throws {
        let operation = generator.next(model)
        operationCount += 1
        lastOperation = operation
        trace.append("\(operationCount): \(operation)")
        if trace.count > Self.traceLength { trace.removeFirst() }
        let expectation = model.perform(operation)
        let outcome = try executor.perform(operation)
        if let problem = expectation.mismatch(with: outcome) {
            var found = divergence(problem)
            found.outcome = outcome
            throw found
        }
        if case .failed = outcome { refusalCount += 1 }
    }
}
