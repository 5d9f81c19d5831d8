package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// after is an answer that takes its time.
func after(d time.Duration, err error) map[string]answer {
	return map[string]answer{"Ask": func(_ *backend, st grpc.ServerStream) error {
		var m []byte
		if err := st.RecvMsg(&m); err != nil {
			return err
		}
		if d > 0 {
			<-time.After(d)
		}
		if err != nil {
			return err
		}
		return st.SendMsg(&m)
	}}
}

// TestPeakEWMALooksAtAnswers: of three endpoints one is slow, or fails at once, and
// nothing but the balancing keeps RPCs away from it.
func TestPeakEWMALooksAtAnswers(t *testing.T) {
	t.Parallel()
	const callers, each = 6, 50
	for _, c := range []struct {
		name string
		took time.Duration
		err  error
		most int // RPCs that it gets, of 300
	}{
		{"slow", 150 * time.Millisecond, nil, 30},
		{"fails at once", 0, status.Error(codes.Unavailable, "not today"), 30},
		{"exhausted at once", 0, status.Error(codes.ResourceExhausted, "too much"), 30},
		{"as well as the others", 10 * time.Millisecond, nil, 200},
	} {
		well, other := startAnswering(t, after(10*time.Millisecond, nil)), startAnswering(t, after(10*time.Millisecond, nil))
		ill := startAnswering(t, after(c.took, c.err))
		g := startGateway(t, Config{}, backendWith("a", "loadBalancing: {policy: PeakEWMA}\noutlierDetection: {disabled: true}", well.addr, other.addr, ill.addr), routeTo("r", "a"))
		cc := dial(t, g.address())
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					if _, err := invoke(shortly(t), cc, "/shop.Cart/Ask", nil); status.Code(err) != codes.OK && status.Code(err) != status.Code(c.err) {
						t.Errorf("%s: %v", c.name, err)
					}
				}
			})
		}
		wg.Wait()
		got := int(ill.served.Load())
		if got > c.most || got == 0 && c.most > callers*each/3 {
			t.Errorf("%s: it got %d of %d RPCs, want at most %d", c.name, got, callers*each, c.most)
		}
	}
}

// TestPeakEWMALooksAtAnswersOfHTTP: the same of backends that speak HTTP/1.
func TestPeakEWMALooksAtAnswersOfHTTP(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		var served atomic.Int64
		start := func(h http.HandlerFunc) string {
			s := httptest.NewServer(h)
			t.Cleanup(s.Close)
			return s.Listener.Addr().String()
		}
		well := func(http.ResponseWriter, *http.Request) { <-time.After(10 * time.Millisecond) }
		ill := start(func(w http.ResponseWriter, _ *http.Request) {
			served.Add(1)
			w.WriteHeader(code)
		})
		g := startGateway(t, Config{}, backendWith("a", "protocol: http1\nloadBalancing: {policy: PeakEWMA}\noutlierDetection: {disabled: true}", start(well), start(well), ill), httpRoute("r", "{backendRefs: [{group: sluice.dev, kind: Backend, name: a}]}"))
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for range 30 {
					res, err := http.Get("http://" + g.address() + "/page")
					if err != nil {
						t.Error(err)
						return
					}
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			})
		}
		wg.Wait()
		if got := served.Load(); got > 30 {
			t.Errorf("who answers %d at once got %d of 180 requests, want at most 30", code, got)
		}
	}
}

// TestZonePreferenceKeepsRPCsNear: the gateway's zone comes from its configuration.
func TestZonePreferenceKeepsRPCsNear(t *testing.T) {
	t.Parallel()
	near, far := startBackend(t, "near"), startBackend(t, "far")
	text := fmt.Sprintf(`
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: a}
spec:
  endpoints: [{address: %q, zone: north}, {address: %q, zone: south}]
  loadBalancing: {zonePreference: {spillBelow: 50}}
`, near.addr, far.addr)
	for zone, want := range map[string]bool{"north": true, "": false} {
		g := startGateway(t, Config{Zone: zone}, text, routeTo("r", "a"))
		cc := dial(t, g.address())
		before := far.served.Load()
		for range 40 {
			mustCall(t, cc, "/shop.Cart/Who", nil)
		}
		if got := far.served.Load() == before; got != want {
			t.Errorf("zone %q: %d RPCs went elsewhere", zone, far.served.Load()-before)
		}
	}
}
