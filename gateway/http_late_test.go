package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// lateClient asks a gateway with a body of which it sends one byte of those that it has
// promised, by HTTP of a version; what it gets is a status and a body.
func lateClient(t *testing.T, version int, address string) <-chan string {
	t.Helper()
	said, promised := io.Pipe()
	t.Cleanup(func() { promised.Close() })
	r, err := http.NewRequest("PUT", "http://"+address+"/", said)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = 1000
	client := plainClient(t, version)
	answer := make(chan string, 1)
	go func() {
		promised.Write([]byte("1"))
	}()
	go func() {
		res, err := client.Do(r)
		if err != nil {
			answer <- err.Error()
			return
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		answer <- fmt.Sprint(res.StatusCode, " ", string(text))
	}()
	return answer
}

// awaitLate is the answer to a late client, which it has soon and without sending more.
func awaitLate(t *testing.T, answer <-chan string) string {
	t.Helper()
	select {
	case text := <-answer:
		return text
	case <-time.After(3 * time.Second):
		t.Fatal("no answer after 3 s")
		return ""
	}
}

// lateBackend takes what comes, and says when something has.
type lateBackend struct {
	resource, addr string
	began          <-chan struct{}
}

// overLate runs a test with callers and backends of each version.
func overLate(t *testing.T, test func(t *testing.T, version int, b lateBackend)) {
	t.Helper()
	for _, version := range []int{1, 2} {
		for _, protocol := range []string{"http1", "h2c"} {
			t.Run(fmt.Sprintf("HTTP/%d to %s", version, protocol), func(t *testing.T) {
				t.Parallel()
				began := make(chan struct{}, 100)
				serve := func(_ http.ResponseWriter, r *http.Request) {
					r.Body.Read(make([]byte, 1))
					began <- struct{}{}
					io.Copy(io.Discard, r.Body)
				}
				b := lateBackend{began: began}
				if protocol == "http1" {
					b.addr = httpBackend(t, serve)
					b.resource = backendWith("a", "protocol: http1", b.addr)
				} else {
					b.addr = httpBackendOfHTTP2(t, serve)
					b.resource = backendWith("a", "accepts: [GRPC, HTTP]", b.addr)
				}
				test(t, version, b)
			})
		}
	}
}

// nothingOpen waits until no request is counted anywhere.
func nothingOpen(t *testing.T, g *node) {
	t.Helper()
	await(t, "nothing to be open", func() bool {
		return g.metric(t, "sluice_rpc_open") == 0 && g.metric(t, "sluice_endpoint_active") == 0
	})
}

// TestExchangeEndsInTimeForLateClients: a timeout does not wait for the client's next byte.
func TestExchangeEndsInTimeForLateClients(t *testing.T) {
	t.Parallel()
	for _, rule := range []string{"timeouts: {request: 200ms, backendRequest: 100ms}", "timeouts: {request: 100ms}"} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			overLate(t, func(t *testing.T, version int, b lateBackend) {
				g := startGateway(t, Config{}, b.resource, everythingWith("a", rule))
				if got := awaitLate(t, lateClient(t, version, g.address())); !strings.HasPrefix(got, "504 ") || !strings.Contains(got, "the deadline has passed") {
					t.Errorf("got %q", got)
				}
				nothingOpen(t, g)
				if n := g.metric(t, "sluice_rpc_outcome_total", "outcome", "deadline"); n != 1 {
					t.Errorf("%v requests have ended for their deadline, want 1", n)
				}
			})
		})
	}
}

// TestExchangeRetriesLateClientsInTime: neither does a policy's bound, and what a client
// owes is no reason to ask elsewhere.
func TestExchangeRetriesLateClientsInTime(t *testing.T) {
	t.Parallel()
	overLate(t, func(t *testing.T, version int, b lateBackend) {
		g := startGateway(t, Config{}, b.resource, everything("a"), policyOn("HTTPRoute", "all", strings.Replace(retryTwice, "}}", "}, perTryTimeout: 100ms}", 1)))
		if got := awaitLate(t, lateClient(t, version, g.address())); !strings.HasPrefix(got, "504 ") {
			t.Errorf("got %q", got)
		}
		nothingOpen(t, g)
		if n := g.metric(t, "sluice_retry_total", "result", "allowed"); n != 0 {
			t.Errorf("%v retries", n)
		}
	})
}

// TestDrainEndsLateUploads: an endpoint that is to be empty by some time is.
func TestDrainEndsLateUploads(t *testing.T) {
	t.Parallel()
	overLate(t, func(t *testing.T, version int, b lateBackend) {
		g := startGateway(t, Config{}, b.resource, everything("a"))
		answer := lateClient(t, version, g.address())
		<-b.began
		g.applySet(t, drainedSet(parse(t, b.resource, everything("a")), b.addr, time.Millisecond))
		if got := awaitLate(t, answer); !strings.HasPrefix(got, "503 ") || !strings.Contains(got, outcomes[evicted].message) {
			t.Errorf("got %q", got)
		}
		nothingOpen(t, g)
	})
}

// TestShutdownEndsLateUploads: nor does the end of the gateway wait for them.
func TestShutdownEndsLateUploads(t *testing.T) {
	t.Parallel()
	overLate(t, func(t *testing.T, version int, b lateBackend) {
		g := startGateway(t, Config{Grace: 50 * time.Millisecond}, b.resource, everything("a"))
		answer := lateClient(t, version, g.address())
		<-b.began
		g.cancel()
		if got := awaitLate(t, answer); !strings.HasPrefix(got, "503 ") {
			t.Errorf("got %q", got)
		}
		g.end(t)
	})
}

// TestExchangeLosesBackendsOfLateClients: a backend that has gone is noticed at once.
func TestExchangeLosesBackendsOfLateClients(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		dying := rawBackend(t, func(c *rawConn) {
			c.readHead()
			c.ReadByte()
		})
		g := startGateway(t, Config{}, http1At("a", dying.addr), everything("a"))
		if got := awaitLate(t, lateClient(t, version, g.address())); !strings.HasPrefix(got, "502 ") {
			t.Errorf("HTTP/%d: got %q", version, got)
		}
		nothingOpen(t, g)
	}
}

// successOf is the share of those requests that have ended well, of all that tell of the
// endpoints of backend a; -1 when none does.
func successOf(g *node) float64 { return g.pool.Backend("default/a").Endpoints[0].Status().Success }

// TestExchangeBlamesNobodyForLateClients: that a client has not sent its request by the
// time that the backend has says nothing of the endpoint.
func TestExchangeBlamesNobodyForLateClients(t *testing.T) {
	t.Parallel()
	overLate(t, func(t *testing.T, version int, b lateBackend) {
		g := startGateway(t, Config{}, b.resource, everythingWith("a", "timeouts: {backendRequest: 100ms}"))
		awaitLate(t, lateClient(t, version, g.address()))
		nothingOpen(t, g)
		if share := successOf(g); share != -1 {
			t.Errorf("it is told of the endpoint: %v of its requests end well", share)
		}
	})
}

// TestExchangeBlamesBackendsThatDoNotTakeIt: that a request was not whole by then is the
// backend's doing where the gateway waits to be rid of it.
func TestExchangeBlamesBackendsThatDoNotTakeIt(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	defer close(ended)
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, resource := range []string{
		backendWith("a", "protocol: http1", rawBackend(t, func(c *rawConn) { c.readHead(); <-ended }).addr),
		backendWith("a", "accepts: [GRPC, HTTP]", httpBackendOfHTTP2(t, hang)),
	} {
		g := startGateway(t, Config{}, resource, everythingWith("a", "timeouts: {backendRequest: 300ms}"))
		bothVersions(t, func(t *testing.T, client *http.Client) {
			res, text := askPlain(t, client, "PUT", "http://"+g.address()+"/", bytes.NewReader(make([]byte, 32<<20)))
			if res.StatusCode != 504 || !strings.Contains(text, "the backend did not begin its answer in time") {
				t.Errorf("got %d %q", res.StatusCode, text)
			}
		})
		nothingOpen(t, g)
		if share := successOf(g); share != 0 {
			t.Errorf("%v of the endpoint's requests end well, want 0", share)
		}
	}
}

// TestExchangeBlamesNobodyForSlowReaders: a backend whose answer is cut off since its
// client did not take it has done its work; one that does not go on has not.
func TestExchangeBlamesNobodyForSlowReaders(t *testing.T) {
	t.Parallel()
	part := make([]byte, 64<<10)
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	}
	stuck := func(w http.ResponseWriter, r *http.Request) {
		w.Write(part)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	tests := []struct {
		name    string
		answer  http.HandlerFunc
		slow    bool
		outcome string
		success float64
	}{
		{"a slow client", endless, true, "deadline", -1},
		{"a slow backend", stuck, false, "backend_timeout", 0},
	}
	for _, test := range tests {
		for _, version := range []int{1, 2} {
			for _, h2c := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, HTTP/%d, h2c %v", test.name, version, h2c), func(t *testing.T) {
					t.Parallel()
					resource := ""
					if h2c {
						resource = backendWith("a", "accepts: [GRPC, HTTP]", httpBackendOfHTTP2(t, test.answer))
					} else {
						resource = backendWith("a", "protocol: http1", httpBackend(t, test.answer))
					}
					g := startGateway(t, Config{}, resource, everythingWith("a", "timeouts: {backendRequest: 400ms}"))
					res, err := plainClient(t, version).Get("http://" + g.address() + "/")
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					count := func() float64 { return g.metric(t, "sluice_rpc_outcome_total", "outcome", test.outcome) }
					for p := make([]byte, 16<<10); test.slow; {
						if _, err := res.Body.Read(p); err != nil {
							break
						}
						<-time.After(10 * time.Millisecond) // as a slow reader has it
					}
					if !test.slow {
						io.Copy(io.Discard, res.Body)
					}
					await(t, "the end to be counted", func() bool { return count() == 1 })
					nothingOpen(t, g)
					if share := successOf(g); share != test.success {
						t.Errorf("%v of the endpoint's requests end well, want %v", share, test.success)
					}
				})
			}
		}
	}
}
