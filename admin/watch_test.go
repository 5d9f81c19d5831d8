package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// watching is a Watch that a test reads.
type watching struct {
	t      *testing.T
	stream *connect.ServerStreamForClient[adminv1.WatchResponse]
}

func (n *testNode) watch(t *testing.T, req *adminv1.WatchRequest) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := n.resources.Watch(ctx, connect.NewRequest(req))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		stream.Close()
	})
	return &watching{t, stream}
}

func (w *watching) next() *adminv1.WatchResponse {
	w.t.Helper()
	if !w.stream.Receive() {
		w.t.Fatalf("the stream ended: %v", w.stream.Err())
	}
	return w.stream.Msg()
}

// describe is a message in a word or two.
func describe(m *adminv1.WatchResponse) string {
	switch m.GetKind() {
	case adminv1.WatchResponse_KIND_OBJECT:
		return "object " + m.GetObject().GetRef().GetName()
	case adminv1.WatchResponse_KIND_CHANGE:
		return fmt.Sprintf("%d %s %s", m.GetSequence(), m.GetChange().GetAction(), m.GetChange().GetRef().GetName())
	default:
		return fmt.Sprintf("%s %d", strings.ToLower(strings.TrimPrefix(m.GetKind().String(), "KIND_")), m.GetSequence())
	}
}

func (w *watching) want(messages ...string) {
	w.t.Helper()
	for _, want := range messages {
		if got := describe(w.next()); got != want {
			w.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestWatchBeginsWithWhatIsAndGoesOnWithWhatChanges(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	w := n.watch(t, &adminv1.WatchRequest{Initial: true})
	w.want("object cart-v1", "object cart-v2", "object cart", "synced 3")
	n.apply(t, strings.Replace(cartRoute, "90", "80", 1))
	m := w.next()
	if describe(m) != "4 update cart" || !strings.Contains(m.GetChange().GetAfter().GetManifest(), `"weight":80`) || m.GetChange().GetActor() == "" {
		t.Errorf("got %v", m)
	}
	if _, err := n.resources.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Ref: ref("GRPCRoute", "cart")})); err != nil {
		t.Fatal(err)
	}
	w.want("5 delete cart")

	n.watch(t, &adminv1.WatchRequest{After: 2}).want("3 create cart-v2", "4 update cart", "5 delete cart")
	n.watch(t, &adminv1.WatchRequest{Kind: "GRPCRoute", Initial: true}).want("synced 5")
	n.watch(t, &adminv1.WatchRequest{Kind: "GRPCRoute"}).want("1 create cart", "4 update cart")
}

func TestWatchRefuses(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	for _, tc := range []struct {
		name string
		req  *adminv1.WatchRequest
		want connect.Code
	}{
		{"a kind that there is not", &adminv1.WatchRequest{Kind: "Pod"}, connect.CodeInvalidArgument},
		{"what has not been", &adminv1.WatchRequest{After: 1000}, connect.CodeOutOfRange},
	} {
		w := n.watch(t, tc.req)
		for w.stream.Receive() {
		}
		wantCode(t, tc.name, w.stream.Err(), tc.want, "")
	}
}

// No change is lost and none comes twice, whoever writes while whoever watches.
func TestWatchLosesNothing(t *testing.T) {
	const writers, each = 4, 25
	n := startNode(t)
	n.apply(t, cart)
	var watchers sync.WaitGroup
	for range 4 {
		w := n.watch(t, &adminv1.WatchRequest{Initial: true})
		watchers.Go(func() {
			last := uint64(0)
			for last < 3+writers*each {
				if !w.stream.Receive() {
					t.Errorf("ended after %d: %v", last, w.stream.Err())
					return
				}
				m := w.stream.Msg()
				switch m.GetKind() {
				case adminv1.WatchResponse_KIND_SYNCED:
					last = m.GetSequence()
				case adminv1.WatchResponse_KIND_CHANGE:
					if m.GetSequence() != last+1 {
						t.Errorf("change %d after %d", m.GetSequence(), last)
						return
					}
					last = m.GetSequence()
				}
			}
		})
	}
	var group sync.WaitGroup
	for writer := range writers {
		group.Go(func() {
			for i := range each {
				text := strings.Replace(strings.Split(cartBackends, "---")[0], "cart-v1", fmt.Sprintf("w%d-%d", writer, i), 1)
				if _, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: text})); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	watchers.Wait()
}

func TestWatchIsBoundedInNumber(t *testing.T) {
	n := startNode(t)
	for range maxWatches {
		n.watch(t, &adminv1.WatchRequest{Initial: true}).want("synced 0")
	}
	w := n.watch(t, &adminv1.WatchRequest{Initial: true})
	for w.stream.Receive() {
	}
	wantCode(t, "one too many", w.stream.Err(), connect.CodeResourceExhausted, "64 watches")
}

// The door does not wait for watches to end by themselves.
func TestWatchEndsWhenTheDoorCloses(t *testing.T) {
	n := startNode(t)
	w := n.watch(t, &adminv1.WatchRequest{Initial: true})
	w.want("synced 0")
	begun := time.Now()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 4500*time.Millisecond { // the grace is 5s
		t.Errorf("the door took %v to close", took)
	}
	for w.stream.Receive() {
	}
	wantCode(t, "the end", w.stream.Err(), connect.CodeUnavailable, "closing")
}

// bubbleAPI is a door over pipes, of whose node only the time is not real.
func bubbleAPI(t *testing.T) (*pipeListener, *api, context.CancelFunc) {
	t.Helper()
	st, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	set, faults := store.Parse("", []byte(cart))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if _, err := st.SyncFiles(t.Context(), set, store.Author{}); err != nil {
		t.Fatal(err)
	}
	l := newPipeListener()
	a, err := newAdmin(Config{}, Parts{Store: st, Gateway: &fakeGateway{store: st}}, slog.New(slog.DiscardHandler), l)
	if err != nil {
		t.Fatal(err)
	}
	// There is no socket to be trusted on, and no token: everybody is.
	a.handler = asAdministrator(a.handler)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, st.Close()); err != nil {
			t.Error(err)
		}
	})
	return l, a.api, stop
}

// asAdministrator takes every request for one by the socket.
func asAdministrator(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = Peer{}.String()
		fromSocket(next).ServeHTTP(w, r)
	})
}

// watchRequest is a Watch in JSON over HTTP/1: one enveloped message (the Connect
// protocol, "Streaming-Request").
func watchRequest(body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+json\r\nContent-Length: %d\r\n\r\n\x00\x00\x00\x00%c%s",
		adminv1.ResourceServiceWatchProcedure, len(body)+5, len(body), body)
}

// Signs of life come when nothing else does: changes of a kind that is not watched
// are nothing else.
func TestWatchGivesSignsOfLife(t *testing.T) {
	for _, tc := range []struct {
		name, request string
		changes       time.Duration // between changes of a backend
	}{
		{"nothing happens", `{"after":"3"}`, time.Hour},
		{"nothing of that kind happens", `{"after":"3","kind":"GRPCRoute"}`, 4 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, a, _ := bubbleAPI(t)
				conn := l.dial()
				defer conn.Close()
				ticker := time.NewTicker(tc.changes)
				defer ticker.Stop()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					for {
						select {
						case <-ticker.C:
							drainOrNot(t, a.store)
						case <-ctx.Done():
							return
						}
					}
				}()
				go io.WriteString(conn, watchRequest(tc.request))
				var text strings.Builder
				begun := time.Now()
				for strings.Count(text.String(), "KIND_ALIVE") < 4 {
					buf := make([]byte, 4096)
					m, err := conn.Read(buf)
					if err != nil {
						t.Fatalf("%v after %q", err, text.String())
					}
					text.Write(buf[:m])
				}
				// A change in between wakes it, and the next is up to 4 s away.
				if took := time.Since(begun); took < 4*aliveEvery || took > 4*aliveEvery+4*time.Second {
					t.Errorf("four signs of life took %v, want %v", took, 4*aliveEvery)
				}
			})
		})
	}
}

// drainOrNot changes a backend.
func drainOrNot(t *testing.T, st *store.Store) {
	_, err := st.Write(t.Context(), store.Txn{Ops: []store.Op{{
		ID: store.ID{Kind: "Backend", Name: "cart-v1"},
		State: func(s store.State, _ *store.Object) (store.State, error) {
			if s.Drains == nil {
				s.Drains = []store.Drain{{}}
			} else {
				s.Drains = nil
			}
			return s, nil
		},
	}}})
	if err != nil && t.Context().Err() == nil {
		t.Error(err)
	}
}

// A client that does not read is cut off, and its place is free again.
func TestWatchCutsOffWhoDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, _ := bubbleAPI(t)
		conn := l.dial()
		defer conn.Close()
		go io.WriteString(conn, watchRequest(`{"initial":true}`))
		synctest.Wait()
		if len(a.watches) != 1 {
			t.Fatalf("%d watches are open, want 1", len(a.watches))
		}
		time.Sleep(answerTimeout + time.Second)
		synctest.Wait()
		if len(a.watches) != 0 {
			t.Errorf("after %v the watch is still open", answerTimeout)
		}
	})
}

// A body that does not come is not waited for longer than bodies may take.
func TestAPICutsOffWhoDoesNotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, _ := bubbleAPI(t)
		conn := l.dial()
		defer conn.Close()
		begun := time.Now()
		go io.WriteString(conn, "POST "+adminv1.ResourceServiceApplyProcedure+" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		answer, _ := io.ReadAll(conn)
		if took := time.Since(begun); took < bodyTime || took > bodyTime+time.Second {
			t.Errorf("cut off after %v, want %v: %q", took, bodyTime, answer)
		}
	})
}
