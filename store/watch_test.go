package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// Every watcher sees every change once and in order: quick ones, slow ones that live
// on the disk, late ones that begin anywhere, while many write and after a restart.
func TestWatcherSeesEveryChangeOnce(t *testing.T) {
	s := openStore(t, Options{})
	const writers, writes = 4, 200
	const total = writers * writes
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	watch := func(after uint64, slow bool) error {
		w := s.Watch(after)
		for want := after + 1; want <= total; want++ {
			if slow && want%50 == 0 { // until it is far behind
				for s.Snapshot().Seq() < min(want+tailLen/2, total) {
					select {
					case <-s.Snapshot().superseded:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
			c, err := w.Next(ctx)
			if err != nil {
				return fmt.Errorf("after %d: %w", want-1, err)
			}
			if c.Seq != want || c.After == nil || c.ID != c.After.ID {
				return fmt.Errorf("change %d is %+v", want, c)
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if err := watch(0, i%2 == 0); err != nil {
				t.Error(err)
			}
		})
	}
	for n := range writers {
		wg.Go(func() {
			for i := range writes {
				b := &Backend{Meta: Meta{Name: fmt.Sprintf("b%d-%d", n, i%7)}}
				b.Spec.SetDefaults()
				b.Spec.Endpoints = []Endpoint{{Address: "a:1", Weight: uint32(i)}}
				if _, err := s.Write(ctx, Txn{Ops: []Op{{Apply: b}}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s = reopen(t, s)
	for _, after := range []uint64{0, 1, 63, 64, 65, total / 2, total - 1, total} {
		if err := watch(after, false); err != nil {
			t.Error(err)
		}
	}
}

func TestWatcherFollowsTheObjects(t *testing.T) {
	s := openStore(t, Options{})
	w := s.Watch(0)
	model := map[ID]*Object{}
	rng := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		randomWrite(t, s, rng)
		for w.after < s.Snapshot().Seq() || len(w.next) > 0 {
			c, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if had := model[c.ID]; (had == nil) != (c.Before == nil) || had != nil && had.Revision != c.Before.Revision {
				t.Fatalf("change %d began with %v, want %v", c.Seq, c.Before, had)
			}
			model[c.ID] = c.After
			if c.After.Deleted {
				delete(model, c.ID)
			}
		}
		if len(model) != s.Snapshot().Len("") {
			t.Fatalf("%d objects, want %d", len(model), s.Snapshot().Len(""))
		}
	}
}

func TestWatcherWaits(t *testing.T) {
	s := openStore(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	type next struct {
		c   Change
		err error
	}
	got := make(chan next, 1)
	w := s.Watch(0)
	go func() {
		c, err := w.Next(ctx)
		got <- next{c, err}
	}()
	applyText(t, s, backendText("a", ""))
	if n := <-got; n.err != nil || n.c.ID.Name != "a" {
		t.Errorf("next %+v", n)
	}
	go func() {
		c, err := w.Next(ctx)
		got <- next{c, err}
	}()
	cancel()
	if n := <-got; !errors.Is(n.err, context.Canceled) {
		t.Errorf("next %+v", n)
	}
	go func() {
		c, err := w.Next(t.Context())
		got <- next{c, err}
	}()
	closeStore(t, s)
	if n := <-got; !errors.Is(n.err, ErrClosed) {
		t.Errorf("next %+v", n)
	}
}

func TestWatcherIsToldOfForgottenChanges(t *testing.T) {
	s := openStore(t, Options{limits: &limits{changes: 100, bytes: 1 << 20, ofObject: 50, recent: 20, objectBytes: 1 << 20, tail: 8 << 10, batch: 8 << 10, page: 1 << 20, descriptors: 1 << 20}})
	for i := range 300 {
		applyText(t, s, backendText(fmt.Sprintf("b%d", i%90), fmt.Sprintf(", labels: {n: \"%d\"}", i)))
	}
	seq := s.Snapshot().Seq()
	for _, test := range []struct {
		after uint64
		want  error
	}{{0, ErrCompacted}, {seq - 101, ErrCompacted}, {seq + 1, ErrCompacted}, {1 << 63, ErrCompacted}, {seq - 100, nil}, {seq - 1, nil}} {
		for _, restarted := range []string{"", "restarted"} {
			if restarted != "" {
				s = reopen(t, s)
			}
			c, err := s.Watch(test.after).Next(t.Context())
			if !errors.Is(err, test.want) || err == nil && c.Seq != test.after+1 {
				t.Errorf("after %d of %d %s: change %d, %v; want %v", test.after, seq, restarted, c.Seq, err, test.want)
			}
		}
	}
}
