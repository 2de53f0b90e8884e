package load

import _ "unsafe" // go:linkname

// While the loop runs, Go's scheduler must not take its thread away: its
// monitor asks every goroutine that has run for 10 ms to make room, and giving
// in costs two thread switches (10 to 50 us), a hundred times a second. pin
// refuses such requests as sync.Pool and the runtime itself do for a moment.
// (runtime.procPin is one of the functions that the Go project promises not
// to change or remove: go.dev/issue/67401.) A pinned loop also keeps a garbage
// collection waiting; so it unpins itself every pinTime for a safepoint.

//go:linkname pin runtime.procPin
func pin() int

//go:linkname unpin runtime.procUnpin
func unpin()
