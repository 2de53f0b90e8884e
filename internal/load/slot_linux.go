package load

// The states of a slot.
const (
	slotDown       = iota // no connection
	slotConnecting        // being set up
	slotOpen              // connected
)

// slot is the place of one connection, and of the request on it.
type slot struct {
	fd    int32
	gen   uint32 // of the connection: events of an earlier one are stale
	state uint8

	bound   bool // a request is here
	counted bool // it begins after the warm-up
	served  bool // a response has come on this connection
	fails   uint8

	next, prev int32 // in the list that the slot is in
	retryAt    int64 // closed loop: not before

	connectFrom int64 // when setting up began
	connected   int64 // when it was done
	intended    int64 // of the request
	taken       int64 // by the loop
	firstByte   int64
	sent        int   // bytes of it
	received    int64 // bytes of its response

	response response
}

// list is a doubly linked list of slots in their array: the four lists of a
// loop hold every slot exactly once.
type list struct {
	first, last int32 // -1: empty
	n           int
}

func (l *list) push(slots []slot, i int32) {
	slots[i].prev, slots[i].next = l.last, -1
	if l.last >= 0 {
		slots[l.last].next = i
	} else {
		l.first = i
	}
	l.last = i
	l.n++
}

func (l *list) remove(slots []slot, i int32) {
	s := &slots[i]
	if s.prev >= 0 {
		slots[s.prev].next = s.next
	} else {
		l.first = s.next
	}
	if s.next >= 0 {
		slots[s.next].prev = s.prev
	} else {
		l.last = s.prev
	}
	l.n--
}
