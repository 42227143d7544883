package admission

import (
	"container/heap"
	"container/list"
	"net/netip"
)

// queue is a bounded place to wait. Networks are served in turn, then the sources
// within a network, and the requests of a source in order of arrival. A network gets at
// most half of the places. When all places are taken, a request of a short queue takes
// the place of the newest in the longest queue. So however many sources flood, none
// gets more than an even share, and a source that needs less than that gets all it
// needs.
//
// It is a tree of networks, their sources, and their waiters. The user of a queue must
// hold a lock.
type queue struct {
	name   string
	parent *queue
	unit   int // bytes per place
	most   int // limit of places

	taken   int           // places
	waiting int           // waiters
	turns   list.List     // of *queue, or of *waiter in a source; the front is next
	turn    *list.Element // of this queue among its parent's turns

	inside  map[string]*queue // by name; nil in a source
	longest longestFirst      // the same queues
	index   int               // in the parent's longest
}

// waiter is in a queue. Fields that the queue does not set are set before it enters.
type waiter struct {
	done  chan struct{} // closed when the wait is over
	state waiterState

	source *queue
	turn   *list.Element
	places int

	check    func() // what a gate runs
	panicked any    // what check panicked with
}

type waiterState int

const (
	entering  waiterState = iota
	waiting               // the only state in which it is in a queue
	called                // its turn has come
	displaced             // by a waiter of a shorter queue
	left                  // on its own
)

func newWaiter(check func()) *waiter { return &waiter{check: check, done: make(chan struct{})} }

// newQueue makes a queue with so many places. A waiter that keeps up to unit bytes
// takes one place, and one that keeps more takes more.
func newQueue(places, unit int) *queue {
	return &queue{most: places, unit: unit, inside: make(map[string]*queue)}
}

// enter lets w, which keeps so many bytes, wait for its source. It may displace other
// waiters, and closes their done.
func (q *queue) enter(w *waiter, source string, bytes int) error {
	w.places = max(1, (bytes+q.unit-1)/q.unit)
	names := []string{networkOf(source), source}
	if !q.makeRoom(w.places, 0, names) {
		if q.inside[names[0]] != nil {
			return ErrOverShare
		}
		return ErrFull
	}
	at := q
	for _, name := range names {
		at = at.child(name)
	}
	w.state, w.source, w.turn = waiting, at, at.turns.PushBack(w)
	at.count(1, w.places)
	return nil
}

// makeRoom reports whether there is room, or room can be made, for a waiter of the
// queue within q that the names lead to. lacking is how many places q's parents lack.
func (q *queue) makeRoom(places, lacking int, names []string) bool {
	if q == nil { // nobody waits there yet
		return lacking == 0
	}
	lacking = max(lacking, q.taken+places-q.most)
	if len(names) == 0 {
		return lacking == 0
	}
	own, taken := q.inside[names[0]], 0
	if own != nil {
		taken = own.taken
	}
	if lacking > 0 && len(q.longest) > 0 && taken+places <= q.longest[0].taken-lacking {
		q.longest[0].displace(lacking)
		return true
	}
	return own.makeRoom(places, lacking, names[1:])
}

func (q *queue) child(name string) *queue {
	c := q.inside[name]
	if c == nil {
		c = &queue{name: name, parent: q, most: q.most}
		if q.parent == nil {
			c.most, c.inside = q.most/2, make(map[string]*queue)
		}
		c.turn = q.turns.PushBack(c)
		q.inside[name] = c
		heap.Push(&q.longest, c)
	}
	return c
}

// displace removes the newest waiters from the longest queues within q until so many
// places are free.
func (q *queue) displace(places int) {
	for places > 0 {
		at := q
		for len(at.longest) > 0 {
			at = at.longest[0]
		}
		w := at.turns.Back().Value.(*waiter)
		places -= w.places
		w.leave(displaced)
		close(w.done)
	}
}

// next removes and returns the waiter whose turn it is, or returns nil.
func (q *queue) next() *waiter {
	if q.waiting == 0 {
		return nil
	}
	at := q
	for at.inside != nil {
		front := at.turns.Front()
		at.turns.MoveToBack(front)
		at = front.Value.(*queue)
	}
	w := at.turns.Front().Value.(*waiter)
	w.leave(called)
	return w
}

// leave takes w out of its queue, and reports whether it was in one.
func (w *waiter) leave(to waiterState) bool {
	if w.state != waiting {
		return false
	}
	w.source.turns.Remove(w.turn)
	w.source.count(-1, -w.places)
	w.state = to
	return true
}

// count adds waiters and places to a source and to its parents. It removes those that
// are then empty.
func (q *queue) count(waiters, places int) {
	for ; q != nil; q = q.parent {
		q.waiting += waiters
		q.taken += places
		switch {
		case q.parent == nil:
		case q.waiting == 0:
			q.parent.turns.Remove(q.turn)
			delete(q.parent.inside, q.name)
			heap.Remove(&q.parent.longest, q.index)
		default:
			heap.Fix(&q.parent.longest, q.index)
		}
	}
}

// networkOf returns the /48 of a source that is an IPv6 address or network. Providers
// give a site that much, so one sender can have 65,536 networks of the size that counts
// as a source. Any other source is its own network.
func networkOf(source string) string {
	ip, err := netip.ParseAddr(source)
	bits := ip.BitLen()
	if err != nil {
		prefix, err := netip.ParsePrefix(source)
		if err != nil {
			return source
		}
		ip, bits = prefix.Addr(), prefix.Bits()
	}
	if !ip.Is6() || ip.Is4In6() || bits < 48 {
		return source
	}
	network, _ := ip.Prefix(48)
	return network.String()
}

// longestFirst is a heap of queues.
type longestFirst []*queue

func (l longestFirst) Len() int           { return len(l) }
func (l longestFirst) Less(i, j int) bool { return l[i].taken > l[j].taken }

func (l longestFirst) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].index, l[j].index = i, j
}

func (l *longestFirst) Push(x any) {
	q := x.(*queue)
	q.index = len(*l)
	*l = append(*l, q)
}

func (l *longestFirst) Pop() any {
	last := len(*l) - 1
	q := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	return q
}
