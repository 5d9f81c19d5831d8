package store

import (
	"context"
	"fmt"

	"sluice/store/disk"
)

// watchBatch is how many changes a watcher holds at once.
const watchBatch = 64

// Watcher reads changes in order, each once. It holds no more than a few of them,
// however slow its owner is: what it has not read yet lies in the history. It needs
// no closing, and belongs to one goroutine.
type Watcher struct {
	store *Store
	after uint64   // the last change that was taken into next
	next  []Change // taken and not yet returned
}

// Watch follows the changes after that sequence.
func (s *Store) Watch(after uint64) *Watcher { return &Watcher{store: s, after: after} }

// Next is the next change, once there is one. It returns ErrCompacted when that is
// not kept any more, ErrClosed after Close, and what ctx says.
func (w *Watcher) Next(ctx context.Context) (Change, error) {
	for len(w.next) == 0 {
		snap := w.store.Snapshot()
		if w.after != snap.seq {
			if err := w.take(snap.seq); err != nil {
				return Change{}, err
			}
			continue
		}
		select {
		case <-snap.superseded:
		case <-w.store.done:
			return Change{}, ErrClosed
		case <-ctx.Done():
			return Change{}, ctx.Err()
		}
	}
	c := w.next[0]
	w.next = w.next[1:]
	return c, nil
}

// take gets the next batch.
func (w *Watcher) take(last uint64) error {
	changes, seqs, err := w.store.after(w.after, last)
	if err != nil {
		return err
	}
	if len(seqs) > 0 {
		err = w.store.read(seqs, func(c *Change) { changes = append(changes, c) })
		if err != nil {
			return err
		}
		if len(changes) < len(seqs) { // dropped meanwhile
			return w.store.compacted(w.after)
		}
	}
	for _, c := range changes {
		w.next = append(w.next, *c)
		w.after = c.Seq
	}
	return nil
}

// after is the next batch of changes, or of their sequences when they are to be read
// from the disk.
func (s *Store) after(after, last uint64) ([]*Change, []uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if after < s.timeline.forgotten || after > last {
		return nil, nil, s.compacted(after)
	}
	if len(s.tail) > 0 && s.tail[0].Seq <= after+1 {
		rest := s.tail[after+1-s.tail[0].Seq:]
		return rest[:min(len(rest), watchBatch)], nil, nil
	}
	var seqs []uint64
	for at := s.timeline.at(after + 1); at < len(s.timeline.events) && len(seqs) < watchBatch; at++ {
		seqs = append(seqs, s.timeline.events[at].seq)
	}
	return nil, s.timeline.fitting(seqs, s.timeline.limits.batch), nil
}

func (s *Store) compacted(after uint64) error {
	return fmt.Errorf("watch the changes after %d: %w", after, ErrCompacted)
}

// read reads changes from the disk; those that were dropped meanwhile are left out.
func (s *Store) read(seqs []uint64, yield func(*Change)) error {
	return s.disk.View(func(tx *disk.Tx) error {
		for _, seq := range seqs {
			row, ok, err := tx.Get(changeRows, seqKey(seq))
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			c, err := decodeChange(seq, row)
			if err != nil {
				return err
			}
			yield(c)
		}
		return nil
	})
}
