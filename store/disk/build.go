package disk

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// buildChunk is how many bytes of changes a builder holds in memory.
const buildChunk = 8 << 20

// A builder writes a new file of rows, without free pages and without what was
// deleted once: a copy, a backup, the file of a new store, or that which takes
// the place of a damaged one. Nobody reads it before it is whole, so it is synced
// once, at the end.
type builder struct {
	bolt    *bbolt.DB
	tx      *Tx // under way
	pending int // bytes of changes in it
}

// build makes the file at path of what fill puts, and returns its state: that which
// fill says, when the rows are those of which it speaks.
func build(path string, fill func(b *builder) (state, error)) (st state, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %q: %w", path, asFull(err)), removeIfThere(path))
		}
	}()
	if err := removeIfThere(path); err != nil {
		return state{}, err
	}
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{
		NoSync: true, NoGrowSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
	})
	if err != nil {
		return state{}, err
	}
	b := &builder{bolt: bolt}
	st, err = b.run(fill)
	return st, errors.Join(err, bolt.Close())
}

func (b *builder) run(fill func(b *builder) (state, error)) (state, error) {
	if err := b.begin(state{}); err != nil {
		return state{}, err
	}
	defer func() { _ = b.tx.bolt.Rollback() }() // of nothing, after the last commit
	st, err := fill(b)
	if err != nil {
		return state{}, err
	}
	if got := b.tx.state; got.rows != st.rows || got.digest != st.digest {
		return state{}, damagef("%d rows, %d wanted, or not those that were written last", got.rows, st.rows)
	}
	// Twice, so that each of the two meta pages leads to all rows.
	b.tx.state = st
	for range 2 {
		if err := b.tx.putState(); err != nil {
			return state{}, err
		}
		if err := b.next(); err != nil {
			return state{}, err
		}
	}
	return st, b.bolt.Sync()
}

func (b *builder) begin(st state) error {
	btx, err := b.bolt.Begin(true)
	if err != nil {
		return err
	}
	b.tx, b.pending = &Tx{bolt: btx, state: st}, 0
	return nil
}

// next commits what is under way, and goes on.
func (b *builder) next() error {
	if err := b.tx.bolt.Commit(); err != nil {
		return err
	}
	return b.begin(b.tx.state)
}

func (b *builder) put(bucket string, key, value []byte) error {
	if err := b.tx.Put(bucket, key, value); err != nil {
		return err
	}
	return b.written()
}

// written counts what was written, and commits when it is much.
func (b *builder) written() error {
	b.pending += len(b.tx.ops)
	b.tx.ops = b.tx.ops[:0]
	if b.pending < buildChunk {
		return nil
	}
	return b.next()
}

// apply makes the changes of an entry of the journal.
func (b *builder) apply(e entry) error {
	if err := e.apply(b.tx); err != nil {
		return err
	}
	return b.written()
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !missing(err) {
		return err
	}
	return nil
}
