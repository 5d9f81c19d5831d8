package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/store/disk"
)

const (
	// maxObjects bounds the memory that a snapshot takes.
	maxObjects = 100_000
	// tailLen is how many of the latest changes watchers get without the disk.
	tailLen = 1024
)

// Options say where a store lies and whom it asks.
type Options struct {
	// Dir holds the files; it is made when it is not there.
	Dir string

	// Verify checks a file before it is mapped; nil means disk.Verify in this
	// process, which a file can be damaged enough to end.
	Verify func(ctx context.Context, path string) error

	// Check says what the gateway would refuse of the changed objects, in the
	// effective set that a write would lead to. Nil means nothing. It is called by
	// one goroutine at a time, and must not write to the store.
	Check func(effective *Set, changed []ID) Faults

	// AllowUnresolved accepts references to nothing in what files declare.
	AllowUnresolved bool

	LockTimeout time.Duration // the wait for another process that holds Dir; zero means 2s
	CopyEvery   time.Duration // between verified copies; zero means 1h

	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // of what Run did; nil means none

	limits  *limits // of history; nil means the default ones
	maxSize int64   // of the file, in bytes; zero means what the disk thinks right
}

// Store keeps the objects of one node, and their history, in one folder. Its methods
// may be called from any goroutine.
type Store struct {
	// Fixed at construction.
	opts  Options
	disk  *disk.DB
	clock *clock
	node  string
	done  chan struct{} // closed by Close
	// crowded asks Run to forget tombstones.
	crowded chan struct{}

	// writing is full while somebody writes.
	writing chan struct{}
	// shadowed is what files declare of objects that the API owns. Owned by whoever
	// writes.
	shadowed map[ID]fileWord

	// leases are asked what becomes of a registration that another node has ended.
	// NewLeases sets it; nil keeps nothing.
	leases atomic.Pointer[Leases]

	// snapshot is replaced under mu; whoever needs no more than it takes no lock.
	snapshot atomic.Pointer[Snapshot]

	mu       sync.RWMutex // guards the fields below
	timeline *timeline
	tail     []*Change // the latest changes, ascending and without a gap
	closed   bool
	renamed  string // why the node has another name, or gets one
}

// Open opens the store in opts.Dir, or makes one.
func Open(opts Options) (*Store, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.limits == nil {
		opts.limits = &defaultLimits
	}
	db, err := disk.Open(disk.Options{
		Dir: opts.Dir, LockTimeout: opts.LockTimeout, Now: opts.Now, Log: opts.Log,
		Verify: opts.Verify, CopyEvery: opts.CopyEvery, MaxSize: opts.maxSize,
	})
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts: opts, disk: db, done: make(chan struct{}), crowded: make(chan struct{}, 1),
		writing: make(chan struct{}, 1), shadowed: map[ID]fileWord{},
		timeline: newTimeline(*opts.limits),
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %q: %w", opts.Dir, err), db.Close())
	}
	return s, nil
}

// Run looks after the store until ctx is done: it makes copies, and forgets
// tombstones that are old enough.
func (s *Store) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		defer cancel()
		err = s.disk.Run(ctx)
	})
	s.sweepUntil(ctx)
	wg.Wait()
	return err
}

// Close waits for the write that is under way and lets go of the files. Watchers end
// with ErrClosed.
func (s *Store) Close() error {
	s.writing <- struct{}{} // for good: nobody writes any more
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		<-s.writing
		return ErrClosed
	}
	close(s.done)
	err := s.disk.Close()
	<-s.writing
	return err
}

// Snapshot is everything as it is now. It costs one atomic load.
func (s *Store) Snapshot() *Snapshot { return s.snapshot.Load() }

// Node is the name of this node, made when the store was. It is another one after the
// store has lost something, from the next start on when that was found out by SetBack.
func (s *Store) Node() string { return s.node }

// Clock is the highest revision that this node has made or seen.
func (s *Store) Clock() Revision { return s.clock.seen() }

// Witness notes a revision of something that this store does not hold: what is changed
// here from now on is later. One that is more than 60 s ahead is refused.
func (s *Store) Witness(r Revision) error {
	if err := s.clock.check(r); err != nil {
		return err
	}
	s.clock.advance(r)
	return nil
}

// Recovery says what was wrong with the files when they were opened, what took over,
// and where what was damaged lies now. It is empty when nothing was.
func (s *Store) Recovery() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	said := make([]string, 0, 2)
	for _, text := range [...]string{s.disk.Recovery(), s.renamed} {
		if text != "" {
			said = append(said, text)
		}
	}
	return strings.Join(said, "; ")
}

// begin waits until nobody else writes; end lets the next one.
func (s *Store) begin(ctx context.Context) error {
	select {
	case s.writing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		<-s.writing
		return ErrClosed
	}
	return nil
}

func (s *Store) end() { <-s.writing }

// load reads the disk.
func (s *Store) load() error {
	var node nodeRow
	var objects []*Object
	err := s.disk.View(func(tx *disk.Tx) error {
		var err error
		if node, err = readNode(tx); err != nil {
			return err
		}
		if objects, err = readObjects(tx); err != nil {
			return err
		}
		return readIndex(tx, s.timeline.add)
	})
	if err != nil {
		return err
	}
	if node.Node == "" {
		if node, err = s.found(); err != nil {
			return err
		}
	}
	if node.Made.IsZero() && !node.Clock.IsZero() { // an older version has not kept it
		node.Made = Revision{node.Clock.Wall, node.Clock.Counter, node.Node}
	}
	if s.disk.Lossy() {
		if node, err = s.renameLossy(node); err != nil {
			return err
		}
	}
	s.node = node.Node
	s.clock = &clock{node: node.Node, now: s.opts.Now, last: node.Clock, made: node.Made, before: node.Made}
	s.timeline.last, s.timeline.forgotten, s.timeline.until = node.Seq, node.Forgotten, node.Until
	empty := &Snapshot{superseded: make(chan struct{})}
	s.snapshot.Store(empty.with(node.Seq, objects))
	return nil
}

// found writes the first row of a new store: the node's name.
func (s *Store) found() (nodeRow, error) {
	node := nodeRow{Format: rowFormat, Node: newNode()}
	return node, s.disk.Update(func(tx *disk.Tx) error { return writeNode(tx, node) })
}

// newNode is a name of eight letters and digits that no other node has: 40 random bits.
func newNode() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

func readNode(tx *disk.Tx) (node nodeRow, err error) {
	row, ok, err := tx.Get(nodeRows, nodeKey)
	if err != nil || !ok {
		return node, err
	}
	if err := json.Unmarshal(row, &node); err != nil {
		return node, fmt.Errorf("decode the state of the node: %w", err)
	}
	if node.Format > rowFormat {
		return node, fmt.Errorf("rows of format %d, this version reads %d: use the version that wrote them, or a later one", node.Format, rowFormat)
	}
	return node, nil
}

func writeNode(tx *disk.Tx, node nodeRow) error {
	row, err := json.Marshal(node)
	if err != nil {
		return fmt.Errorf("encode the state of the node: %w", err)
	}
	return tx.Put(nodeRows, nodeKey, row)
}

// readObjects decodes all objects, on all processors: it is what a start waits for.
func readObjects(tx *disk.Tx) ([]*Object, error) {
	type entry struct {
		id  ID
		row []byte
	}
	var entries []entry
	var failed error
	err := tx.Ascend(objectRows, nil, func(key, row []byte) bool {
		id, err := parseObjectKey(key)
		if err != nil {
			failed = err
			return false
		}
		entries = append(entries, entry{id, bytes.Clone(row)})
		return true
	})
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	objects := make([]*Object, len(entries))
	err = inParallel(len(entries), func(i int) (err error) {
		objects[i], err = decodeObject(entries[i].id, entries[i].row)
		return err
	})
	return objects, err
}

// inParallel calls do for each number below n, and returns the errors of all.
func inParallel(n int, do func(i int) error) error {
	workers := min(runtime.GOMAXPROCS(0), n/64+1)
	errs := make([]error, workers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func readIndex(tx *disk.Tx, yield func(event)) error {
	var failed error
	err := tx.Ascend(indexRows, nil, func(key, row []byte) bool {
		var e event
		if e, failed = decodeEvent(key, row); failed != nil {
			return false
		}
		yield(e)
		return true
	})
	return errors.Join(err, failed)
}

// publish makes what was written visible.
func (s *Store) publish(next *Snapshot, changes []*Change, events, dropped []event) {
	s.mu.Lock()
	s.timeline.drop(dropped)
	for _, e := range events {
		s.timeline.add(e)
	}
	s.tail = append(s.tail, changes...)
	most := min(len(s.tail), tailLen)
	if fit := most - s.timeline.excess(most, s.timeline.limits.tail); fit < len(s.tail) {
		s.tail = slices.Clone(s.tail[len(s.tail)-fit:]) // a new one: what it leaves out is to be freed
	}
	old := s.snapshot.Swap(next)
	s.mu.Unlock()
	close(old.superseded)
	s.crowds(next)
}
