/// A plain POSIX thread that can be joined.
internal import Glibc

@safe
package final class WorkerThread: @unchecked Sendable {
    private var handle: pthread_t = 0

    /// Starts `body` on a thread of its own.
    package init(_ body: @escaping @Sendable () -> Void) {
        let box = unsafe Unmanaged.passRetained(Box(body))
        unsafe pthread_create(
            &handle, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                unsafe Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body()
                return nil
            }, box.toOpaque())
    }

    /// Sends the thread a signal, whether or not it has ended; before `join`.
    package func signal(_ number: Int32) { pthread_kill(handle, number) }

    /// Waits until the thread has ended.
    package func join() { pthread_join(handle, nil) }

    private final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
}
