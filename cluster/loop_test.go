package cluster

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sluice/store"
)

// silence is a courier to peers that never answer.
type silence []string

func (s silence) Live() []string            { return s }
func (s silence) Send(string, []byte)       {}
func (s silence) SendPacket(string, []byte) {}
func (s silence) PacketRoom() int           { return 1300 }
func (s silence) Life(string) string        { return "" }

// openLoop has a loop with a store of its own; Run is the caller's.
func openLoop(t *testing.T, peers ...string) *loop {
	t.Helper()
	s, err := store.Open(store.Options{Dir: simFolder(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return newLoop(Parts{Store: s}, silence(peers), slog.New(slog.DiscardHandler))
}

// Whoever waits for peers that say nothing waits as long as he wants, and no longer.
func TestLoopConfirmEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLoop(t, "silent")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		l.membersChanged()
		resource := parseSim(t, simBackend("b0", "x"))[0]
		result, err := l.parts.Store.Write(ctx, store.Txn{Ops: []store.Op{{Apply: resource}}})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for _, within := range []time.Duration{0, 100 * time.Millisecond, 3 * time.Second} {
			asked, stop := context.WithTimeout(ctx, within)
			failed := l.confirm(asked, result.Changes)
			stop()
			if len(failed) != 1 || !errors.Is(failed["silent"], context.DeadlineExceeded) {
				t.Errorf("within %v: failed %v", within, failed)
			}
		}
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		asked, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if failed := l.confirm(asked, result.Changes); failed["silent"] == nil {
			t.Error("confirmed by a loop that does not run")
		}
	})
}

func TestLoopAsksForKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openLoop(t, "silent")
		l.keys = func(keyVerb, string) keyReply { return keyReply{Keys: []string{"mine"}} }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		asked, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		answers := l.askKeys(asked, keyList, "")
		if own := answers[l.parts.Store.Node()]; len(own.Keys) != 1 || own.Keys[0] != "mine" {
			t.Errorf("own keys %+v", own)
		}
		if !errors.Is(answers["silent"].Err, context.DeadlineExceeded) {
			t.Errorf("answers %+v", answers)
		}
		cancel()
		<-ended
	})
}
