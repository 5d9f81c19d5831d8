package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// How much history is kept. A change is dropped when any of these says so; the ones
// of the last recentChanges, which watchers may still come for, only by the bounds
// that are in bytes and by that of the whole. The last change of an object is not
// dropped for the object's own bound.
const (
	maxChanges       = 50_000
	maxChangeBytes   = 128 << 20 // of rows
	maxObjectChanges = 200       // of one object
	maxObjectBytes   = 32 << 20  // of rows of one object: a large one leaves room for the others
	recentChanges    = 5_000
)

// How much of it is in memory at once, in bytes of rows.
const (
	maxTailBytes  = 16 << 20 // for watchers that keep up
	maxBatchBytes = 4 << 20  // for one watcher that does not
	maxPageBytes  = 16 << 20 // for one call of History
)

// maxDescriptors bounds the bytes of all Schemas together, as maxObjects does objects:
// what is made of them takes several times as much.
const maxDescriptors = 128 << 20

// limits are those of one store: tests have smaller ones.
type limits struct {
	changes, bytes, ofObject, recent int
	objectBytes                      int
	tail, batch, page                int // bytes
	descriptors                      int // bytes
}

var defaultLimits = limits{
	maxChanges, maxChangeBytes, maxObjectChanges, recentChanges,
	maxObjectBytes,
	maxTailBytes, maxBatchBytes, maxPageBytes,
	maxDescriptors,
}

// event is what is known of a change without reading it.
type event struct {
	seq  uint64
	time time.Time
	size int // bytes of its row
	id   ID
}

func (e event) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(e.time.UnixNano()))
	b = binary.BigEndian.AppendUint32(b, uint32(e.size))
	return append(b, objectKey(e.id)...)
}

func decodeEvent(key, row []byte) (e event, err error) {
	if e.seq, err = parseSeqKey(key); err != nil {
		return e, err
	}
	if len(row) < 12 {
		return e, fmt.Errorf("decode the index of change %d: %w", e.seq, errShortRow)
	}
	e.time = time.Unix(0, int64(binary.BigEndian.Uint64(row))).UTC()
	e.size = int(binary.BigEndian.Uint32(row[8:]))
	e.id, err = parseObjectKey(row[12:])
	return e, err
}

// timeline is the index of the history that is kept, under the store's mu.
type timeline struct {
	limits    limits
	events    []event // ascending, without those that were dropped
	bytes     int     // of all
	byObject  map[ID][]uint64
	sizes     map[ID]int // bytes of the events of an object
	last      uint64     // the sequence of the latest change ever
	forgotten uint64     // the highest sequence that was dropped
	until     time.Time  // the time of that change
}

func newTimeline(l limits) *timeline {
	return &timeline{limits: l, byObject: map[ID][]uint64{}, sizes: map[ID]int{}}
}

func (t *timeline) add(e event) {
	t.events = append(t.events, e)
	t.bytes += e.size
	t.byObject[e.id] = append(t.byObject[e.id], e.seq)
	t.sizes[e.id] += e.size
	t.last = e.seq
}

// at is where the event of that sequence, or else the next one, stands.
func (t *timeline) at(seq uint64) int {
	at, _ := slices.BinarySearchFunc(t.events, seq, func(e event, seq uint64) int { return cmp.Compare(e.seq, seq) })
	return at
}

// surplus are the events to drop when more are added: those of them that are too many
// of one object and not recent, and the oldest when all are too many.
func (t *timeline) surplus(more []event) []event {
	last := t.last + uint64(len(more))
	recent := last - min(last, uint64(t.limits.recent)) // what is not above is not recent
	count, size := map[ID]int{}, map[ID]int{}           // of those to come
	for _, e := range more {
		count[e.id]++
		size[e.id] += e.size
	}
	// Only the objects that change, and those of events that cease to be recent,
	// can have come over their limit.
	var drop []event
	seen := map[ID]bool{}
	thin := func(id ID) {
		if seen[id] {
			return
		}
		seen[id] = true
		seqs := t.byObject[id]
		over, bytes := len(seqs)+count[id]-t.limits.ofObject, t.sizes[id]+size[id]
		for i, seq := range seqs {
			if (i >= over || seq > recent) && bytes <= t.limits.objectBytes || count[id] == 0 && i == len(seqs)-1 {
				break
			}
			e := t.events[t.at(seq)]
			drop = append(drop, e)
			bytes -= e.size
		}
	}
	for _, e := range more {
		thin(e.id)
	}
	before := t.last - min(t.last, uint64(t.limits.recent))
	for i := t.at(before + 1); i < len(t.events) && t.events[i].seq <= recent; i++ {
		thin(t.events[i].id)
	}
	return t.oldest(drop, more, recent)
}

// oldest adds to what is dropped until the whole keeps to its bounds. Of too many
// changes those of processes that came and went give way to what people have done.
func (t *timeline) oldest(drop, more []event, recent uint64) []event {
	dropped := make(map[uint64]bool, len(drop))
	n, bytes := len(t.events)+len(more)-len(drop), t.bytes
	for _, e := range more {
		bytes += e.size
	}
	for _, e := range drop {
		dropped[e.seq] = true
		bytes -= e.size
	}
	forget := func(e event) {
		drop, dropped[e.seq] = append(drop, e), true
		n, bytes = n-1, bytes-e.size
	}
	for i := 0; i < len(t.events) && n > t.limits.changes; i++ {
		if e := t.events[i]; e.id.Kind == RegistrationKind && e.seq <= recent && !dropped[e.seq] {
			forget(e)
		}
	}
	for i := 0; i < len(t.events) && (n > t.limits.changes || bytes > t.limits.bytes); i++ {
		if e := t.events[i]; !dropped[e.seq] {
			forget(e)
		}
	}
	return drop
}

// drop forgets events.
func (t *timeline) drop(events []event) {
	if len(events) == 0 {
		return
	}
	gone := make(map[uint64]bool, len(events))
	for _, e := range events {
		gone[e.seq] = true
		t.bytes -= e.size
		if e.seq > t.forgotten {
			t.forgotten, t.until = e.seq, e.time
		}
		seqs := slices.DeleteFunc(t.byObject[e.id], func(seq uint64) bool { return seq == e.seq })
		t.byObject[e.id] = seqs
		t.sizes[e.id] -= e.size
		if len(seqs) == 0 {
			delete(t.byObject, e.id)
			delete(t.sizes, e.id)
		}
	}
	t.events = slices.DeleteFunc(t.events, func(e event) bool { return gone[e.seq] })
}

// before are the sequences below before (0: all) of an object, or of all when id is
// zero: at most limit, the latest first.
func (t *timeline) before(id ID, before uint64, limit int) []uint64 {
	if before == 0 {
		before = t.last + 1
	}
	var seqs []uint64
	if id.IsZero() {
		for i := t.at(before) - 1; i >= 0 && len(seqs) < limit; i-- {
			seqs = append(seqs, t.events[i].seq)
		}
		return seqs
	}
	all := t.byObject[id]
	at, _ := slices.BinarySearch(all, before)
	for i := at - 1; i >= 0 && len(seqs) < limit; i-- {
		seqs = append(seqs, all[i])
	}
	return seqs
}

// moment is the sequence of the last change that was made at a time or before, and
// whether all that was changed since is still known.
func (t *timeline) moment(at time.Time) (seq uint64, known bool) {
	if t.forgotten > 0 && !t.until.After(at) {
		seq = t.forgotten
	}
	for i := len(t.events) - 1; i >= 0 && t.events[i].seq > seq; i-- {
		if !t.events[i].time.After(at) {
			seq = t.events[i].seq
			break
		}
	}
	return seq, seq > 0 && seq >= t.forgotten
}

// firstAfter are the sequences of the first change of each object after seq.
func (t *timeline) firstAfter(seq uint64) []uint64 {
	var seqs []uint64
	seen := map[ID]bool{}
	for _, e := range t.events[t.at(seq+1):] {
		if !seen[e.id] {
			seen[e.id] = true
			seqs = append(seqs, e.seq)
		}
	}
	return seqs
}

// since is how far At can go back, zero when nothing has been changed yet.
func (t *timeline) since() time.Time {
	if t.forgotten > 0 {
		return t.until
	}
	if len(t.events) > 0 {
		return t.events[0].time
	}
	return time.Time{}
}

// excess is how many of the last n events, the oldest of them, take more than so many
// bytes together with those after them.
func (t *timeline) excess(n, bytes int) int {
	n = min(n, len(t.events))
	for i := range n {
		bytes -= t.events[len(t.events)-1-i].size
		if bytes < 0 {
			return n - i
		}
	}
	return 0
}

// fitting is the beginning of a list of sequences whose changes take no more than so
// many bytes, at least one.
func (t *timeline) fitting(seqs []uint64, bytes int) []uint64 {
	for i, seq := range seqs {
		if at := t.at(seq); at < len(t.events) && t.events[at].seq == seq {
			bytes -= t.events[at].size
		}
		if bytes < 0 && i > 0 {
			return seqs[:i]
		}
	}
	return seqs
}
