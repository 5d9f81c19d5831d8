package upstream

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/balance"
	"sluice/store"
)

// Who speaks HTTP/1 is asked on connections that requests use, too.
func TestHTTP1EndpointIsChecked(t *testing.T) {
	for name, check := range map[string]store.HealthCheck{
		"http": {HTTP: &store.HTTPCheck{Path: "/healthz", Host: "shop"}},
		"tcp":  {TCP: &store.TCPCheck{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ill atomic.Bool
				var asked atomic.Int32
				w := newPlainWorld(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/healthz" && r.Host == "shop" && r.UserAgent() == healthAgent {
						asked.Add(1)
					}
					if ill.Load() {
						w.WriteHeader(http.StatusServiceUnavailable)
					}
				})
				b := w.apply(func(spec *store.Backend) {
					check.Interval, check.Timeout = store.Duration(time.Second), store.Duration(time.Second)
					check.HealthyThreshold, check.UnhealthyThreshold = 1, 2
					spec.Spec.HealthCheck = &check
				})
				e := b.Endpoints[0]
				time.Sleep(10 * time.Second)
				if e.Condition() != 0 {
					t.Errorf("it is %s: %v", e.State(), b.Down())
				}
				if check.HTTP != nil {
					if n := asked.Load(); n < 9 || n > 12 || w.tries.Load() != 1 {
						t.Errorf("asked %d times in 10s, on %d connections", n, w.tries.Load())
					}
					ill.Store(true)
				} else {
					gone := errors.New("gone")
					w.refuse.Store(&gone)
				}
				time.Sleep(3 * time.Second)
				if e.Condition() != balance.Unhealthy || b.Down() == nil {
					t.Errorf("it is %s: %v", e.State(), b.Down())
				}
				ill.Store(false)
				w.refuse.Store(nil)
				time.Sleep(2 * time.Second)
				if e.Condition() != 0 {
					t.Errorf("it is well again, and %s: %v", e.State(), b.Down())
				}
			})
		})
	}
}

// A check by gRPC has no way to a backend of HTTP/1, and does no harm.
func TestHTTP1EndpointCannotBeCheckedByGRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlainWorld(t, func(http.ResponseWriter, *http.Request) {})
		b := w.apply(func(spec *store.Backend) {
			spec.Spec.HealthCheck = &store.HealthCheck{
				GRPC: &store.GRPCCheck{}, Interval: store.Duration(time.Second), Timeout: store.Duration(time.Second),
				HealthyThreshold: 1, UnhealthyThreshold: 1,
			}
		})
		time.Sleep(10 * time.Second)
		if s := b.Endpoints[0].Status(); s.State != StateUnhealthy || s.Why != "health check by gRPC: the backend speaks HTTP/1" {
			t.Errorf("it is %s: %s", s.State, s.Why)
		}
		if n := w.tries.Load(); n != 0 {
			t.Errorf("%d connections were made", n)
		}
	})
}

// A newcomer is connected before it gets a request.
func TestHTTP1EndpointIsConnectedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlainWorld(t, func(http.ResponseWriter, *http.Request) {})
		e, res, err := get(t, w.apply(nil), "/")
		if err != nil {
			t.Fatal(err)
		}
		finish(t, e, res)
		gone := errors.New("gone")
		w.refuse.Store(&gone)
		b := w.apply(func(spec *store.Backend) {
			spec.Spec.Endpoints = append(spec.Spec.Endpoints, store.Endpoint{Address: "b:80", Weight: 1})
		})
		newcomer := b.Endpoints[1]
		if newcomer.Condition() != balance.Down {
			t.Errorf("before it was reached it is %s", newcomer.State())
		}
		time.Sleep(time.Second)
		if newcomer.State() != StateDown {
			t.Errorf("it cannot be reached, and is %s", newcomer.State())
		}
		w.refuse.Store(nil)
		time.Sleep(backoffMax)
		if s := newcomer.Status(); s.State != StateHealthy {
			t.Errorf("it can be reached, and is %s: %s", s.State, s.Why)
		}
		w.apply(nil)
		time.Sleep(time.Minute)
	})
}

// One whose connections all carry requests is busy, and not ill; one that takes a
// connection and does not answer is.
func TestHTTP1EndpointIsNotIllForBeingBusy(t *testing.T) {
	for _, tt := range []struct {
		name     string
		requests int // that go on, of two connections
		hangs    bool
		want     string
	}{
		{"all busy", 2, false, StateHealthy},
		{"one busy", 1, false, StateHealthy},
		{"one busy, and checks hang", 1, true, StateUnhealthy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				var hangs atomic.Bool
				w := newPlainWorld(t, func(_ http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/healthz" || hangs.Load() {
						<-release
					}
				})
				b := w.apply(func(spec *store.Backend) {
					spec.Spec.Connection.MaxConnections = 2
					spec.Spec.HealthCheck = &store.HealthCheck{
						HTTP: &store.HTTPCheck{Path: "/healthz"}, Interval: store.Duration(time.Second),
						Timeout: store.Duration(time.Second), HealthyThreshold: 1, UnhealthyThreshold: 2,
					}
				})
				time.Sleep(3 * time.Second)
				hangs.Store(tt.hangs)
				var wg sync.WaitGroup
				for range tt.requests {
					wg.Go(func() {
						e, _, _ := get(t, b, "/long")
						e.Done(Result{})
					})
				}
				time.Sleep(10 * time.Second)
				if s := b.Endpoints[0].Status(); s.State != tt.want {
					t.Errorf("it is %s: %s", s.State, s.Why)
				}
				close(release)
				wg.Wait()
			})
		})
	}
}
