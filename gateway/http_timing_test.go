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

const timingProto = `syntax = "proto3";
package timing;
service Timing {
  rpc Ask(Told) returns (Told);
  rpc Watch(Told) returns (stream Told);
}
message Told { string name = 1; }
`

// TestPassageFollowsTheTimeoutsOfRPCs: those that are passed on as they are end as those
// that are relayed do.
func TestPassageFollowsTheTimeoutsOfRPCs(t *testing.T) {
	t.Parallel()
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	begin := func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "beginning")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	talk := func(w http.ResponseWriter, r *http.Request) {
		for range 10 {
			io.WriteString(w, "word")
			w.(http.Flusher).Flush()
			select {
			case <-time.After(50 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	}
	late := func(w http.ResponseWriter, _ *http.Request) { <-time.After(300 * time.Millisecond) }
	tests := []struct {
		name, method, spec string
		asked              time.Duration
		backend            http.HandlerFunc
		outcome            string
		least              time.Duration
	}{
		{"none named", "timing.Timing/Ask", "timeouts: {request: 10s, default: 100ms}", 0, hang, "deadline", 100 * time.Millisecond},
		{"one that is longer than the default", "timing.Timing/Ask", "timeouts: {request: 10s, default: 50ms}", 400 * time.Millisecond, hang, "deadline", 390 * time.Millisecond},
		{"one that is longer than the request's", "timing.Timing/Ask", "timeouts: {request: 100ms}", 10 * time.Second, hang, "deadline", 100 * time.Millisecond},
		{"one without a policy", "timing.Timing/Ask", "", 100 * time.Millisecond, hang, "deadline", 90 * time.Millisecond},
		{"a method that nobody knows", "timing.Timing/Other", "timeouts: {request: 10s, default: 50ms}", 400 * time.Millisecond, hang, "deadline", 390 * time.Millisecond},
		{"what is no stream, to its end", "timing.Timing/Ask", "timeouts: {request: 300ms}", 0, begin, "deadline", 300 * time.Millisecond},
		{"a method that nobody knows, until its answer", "timing.Timing/Other", "timeouts: {request: 300ms}", 0, talk, "served", 450 * time.Millisecond},
		{"a stream that begins late", "timing.Timing/Watch", "timeouts: {request: 100ms, default: 100ms}", 0, late, "served", 300 * time.Millisecond},
		{"a stream with a deadline of its own", "timing.Timing/Watch", "timeouts: {request: 10s}", 200 * time.Millisecond, talk, "deadline", 190 * time.Millisecond},
		{"a silent stream", "timing.Timing/Watch", "timeouts: {streamIdle: 150ms}", 0, begin, "idle", 150 * time.Millisecond},
		{"a silent stream that nobody knew of", "timing.Timing/Other", "timeouts: {streamIdle: 150ms}", 0, begin, "idle", 150 * time.Millisecond},
		{"a stream that is never silent for long", "timing.Timing/Watch", "timeouts: {streamIdle: 300ms}", 0, talk, "served", 450 * time.Millisecond},
		{"an old stream", "timing.Timing/Watch", "timeouts: {streamMaxAge: 200ms}", 0, talk, "aged", 180 * time.Millisecond},
	}
	protocols := []struct {
		name    string
		content string
		header  func(d time.Duration) []string
	}{
		{"gRPC-Web", "application/grpc-web+proto", func(d time.Duration) []string { return []string{"Grpc-Timeout", fmt.Sprint(d.Milliseconds(), "m")} }},
		{"Connect", "application/proto", func(d time.Duration) []string { return []string{"Connect-Timeout-Ms", fmt.Sprint(d.Milliseconds())} }},
	}
	for _, test := range tests {
		for _, protocol := range protocols {
			t.Run(test.name+", "+protocol.name, func(t *testing.T) {
				t.Parallel()
				told := make(chan string, 1)
				addr := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					told <- r.Header.Get("Grpc-Timeout") + r.Header.Get("Connect-Timeout-Ms")
					test.backend(w, r)
				})
				resources := []string{schemaOf(t, timingProto), backendWith("a", "protocol: http1\naccepts: [GRPCWeb, Connect]", addr), routeTo("a", "a")}
				if test.spec != "" {
					resources = append(resources, policyFor("a", test.spec))
				}
				g := startGateway(t, Config{}, resources...)
				r, _ := http.NewRequestWithContext(shortly(t), "POST", "http://"+g.address()+"/"+test.method, bytes.NewReader(message(nil)))
				r.Header.Set("Content-Type", protocol.content)
				if protocol.name == "Connect" {
					r.Header.Set("Connect-Protocol-Version", "1")
				}
				if test.asked > 0 {
					pair := protocol.header(test.asked)
					r.Header.Set(pair[0], pair[1])
				}
				began := time.Now()
				res, err := plainClient(t, 1).Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if took := time.Since(began); took < test.least || took > 5*time.Second {
					t.Errorf("it took %v, want %v or little more", took, test.least)
				}
				if cut := err != nil; cut && test.outcome == "served" {
					t.Errorf("it broke off: %v", err)
				}
				await(t, "the request to be over", func() bool { return g.metric(t, "sluice_rpc_outcome_total", "outcome", test.outcome) == 1 })
				bounded := test.asked > 0 || test.outcome == "deadline"
				if got := <-told; bounded != (got != "") {
					t.Errorf("the backend was told %q of the time", got)
				}
			})
		}
	}
}

// TestPassageLeavesMalformedTimeoutsToTheBackend, which tells the caller in its own words.
func TestPassageLeavesMalformedTimeoutsToTheBackend(t *testing.T) {
	t.Parallel()
	addr := httpBackend(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Grpc-Timeout")) })
	g := startGateway(t, Config{}, schemaOf(t, timingProto), backendWith("a", "protocol: http1\naccepts: [GRPCWeb, Connect]", addr), routeTo("a", "a"), policyFor("a", "timeouts: {request: 10s}"))
	res, text := askPlain(t, plainClient(t, 1), "POST", "http://"+g.address()+"/timing.Timing/Ask", strings.NewReader(""), "Content-Type", "application/grpc-web+proto", "Grpc-Timeout", "soon")
	if res.StatusCode != 200 || text != "soon" {
		t.Errorf("got %d %q", res.StatusCode, text)
	}
}
