package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

const cartProto = `
syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "google/protobuf/any.proto";

message Item { string cart = 1; string name = 2; int32 count = 3; bytes photo = 4; google.protobuf.Any more = 5; repeated double weights = 6; }
message GetRequest { string cart = 1; string name = 2; int32 page = 3; }
message AddRequest { string cart = 1; Item item = 2; }
message Summary { int32 items = 1; }
message Upload { string id = 1; google.api.HttpBody file = 2; }
message Strange { string why = 1; }

service Cart {
  rpc Get(GetRequest) returns (Item) { option (google.api.http) = { get: "/v1/carts/{cart}/items/{name}" }; }
  rpc Add(AddRequest) returns (Item) {
    option (google.api.http) = { post: "/v1/carts/{cart}/items" body: "item" additional_bindings { put: "/v1/carts" body: "*" } };
  }
  rpc Remove(GetRequest) returns (Summary) { option (google.api.http) = { delete: "/v1/carts/{cart}/items/{name}" }; }
  rpc Watch(GetRequest) returns (stream Item) { option (google.api.http) = { get: "/v1/carts/{cart}:watch" }; }
  rpc Import(stream Item) returns (Summary) { option (google.api.http) = { post: "/v1/items:import" body: "*" }; }
  rpc Talk(stream Item) returns (stream Item) { option (google.api.http) = { post: "/v1/items:talk" body: "*" }; }
  rpc Receipt(GetRequest) returns (google.api.HttpBody) { option (google.api.http) = { get: "/v1/receipts/{cart}" }; }
  rpc Scans(GetRequest) returns (stream google.api.HttpBody) { option (google.api.http) = { get: "/v1/receipts/{cart}:scans" }; }
  rpc Scan(stream Upload) returns (Summary) { option (google.api.http) = { post: "/v1/receipts/{id}" body: "file" }; }
  rpc Note(AddRequest) returns (Summary);
}
`

// cartSchema is the schema of the example service.
var cartSchema = sync.OnceValues(func() (*schema.Schema, error) {
	set, err := schema.CompileSources(context.Background(), func(path string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(cartProto)), nil
	}, []string{"."}, []string{"cart.proto"})
	if err != nil {
		return nil, err
	}
	return schema.Compile(set)
})

// shop is a Way to one backend that has the example service.
type shop struct {
	connectWay
	table, learnt *Table
	// unrouted are the methods that no route leads to.
	unrouted map[string]bool

	seen   sync.Mutex // guards opened
	opened []string   // the methods of all calls of Open
}

func newShop(t testing.TB, backend func(*connectCall) *wire.Status) *shop {
	t.Helper()
	s, err := cartSchema()
	if err != nil {
		t.Fatal(err)
	}
	table, faults := NewTable(s.Methods())
	for _, fault := range faults {
		t.Fatal(fault)
	}
	methods := make(map[string]*schema.Method)
	for _, m := range s.Methods() {
		methods[m.Path] = m
	}
	return &shop{connectWay: connectWay{backend: backend, methods: methods}, table: table}
}

func (p *shop) Table(*http.Request) *Table { return p.table }
func (p *shop) Learn(*http.Request) *Table { return p.learnt }

func (p *shop) Open(r *http.Request, o *Opening) (Call, error) {
	p.seen.Lock()
	p.opened = append(p.opened, o.Method)
	p.seen.Unlock()
	if p.unrouted[o.Method] {
		return nil, &wire.Status{Code: wire.Unimplemented, Message: "sluice: no route matches this method", Gateway: true, HTTP: http.StatusNotFound}
	}
	return p.connectWay.Open(r, o)
}

// serve serves a shop over loopback HTTP/1.1 and HTTP/2, and looks in the end whether
// every RPC was closed.
func (p *shop) serve(t *testing.T) *httptest.Server {
	t.Helper()
	s := NewServer(Options{})
	var handlers sync.WaitGroup // which an HTTP/2 connection does not wait for
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers.Add(1)
		defer handlers.Done()
		if r.ProtoMajor == 1 {
			// As the gateway's own server does; what is left of a request is its to see to.
			http.NewResponseController(w).EnableFullDuplex()
			if r.ContentLength != 0 {
				w.Header().Set("Connection", "close")
			}
		}
		if strings.HasPrefix(r.URL.Path, "/shop.v1.") {
			s.ServeMethod(w, r, p)
		} else if !s.ServeREST(w, r, p) {
			s.NotFound(w, r, p)
		}
	}))
	h.Config.Protocols = new(http.Protocols)
	h.Config.Protocols.SetHTTP1(true)
	h.Config.Protocols.SetUnencryptedHTTP2(true)
	h.Start()
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
		handlers.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.calls {
			c.mu.Lock()
			if !c.closed {
				t.Errorf("RPC %s was not closed", c.o.Method)
			}
			c.mu.Unlock()
		}
	})
	return h
}

// aborted is what the newest RPC was ended for, or nil.
func (p *shop) aborted(t *testing.T) *wire.Status {
	t.Helper()
	c := p.last(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.aborted
}

// onWire is a message of the example service, given as JSON.
func onWire(t testing.TB, name, text string) []byte {
	t.Helper()
	s, err := cartSchema()
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.FindMessageByURL("shop.v1/shop.v1." + name)
	if err != nil {
		t.Fatal(err)
	}
	msg := m.New().Interface()
	if err := (protojson.UnmarshalOptions{Resolver: s}).Unmarshal([]byte(text), msg); err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inJSON is a message of the example service as JSON without white space.
func inJSON(t testing.TB, name string, b []byte) string {
	t.Helper()
	s, err := cartSchema()
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.FindMessageByURL("shop.v1/shop.v1." + name)
	if err != nil {
		t.Fatal(err)
	}
	msg := m.New().Interface()
	if err := proto.Unmarshal(b, msg); err != nil {
		t.Fatal(err)
	}
	return compact(t, []byte(protojson.MarshalOptions{Resolver: s}.Format(msg)))
}

// compact is a JSON document without white space.
func compact(t testing.TB, text []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		t.Fatalf("%q is not JSON: %v", text, err)
	}
	return b.String()
}

// reply answers with one message, or with st.
func reply(msg []byte, st *wire.Status) func(*connectCall) *wire.Status {
	return func(c *connectCall) *wire.Status {
		c.recv()
		if st == nil {
			c.send(Message{Data: msg})
		}
		return st
	}
}

// ask sends a request with fields, "Name: value", and reads the answer whole.
func ask(t *testing.T, client *http.Client, verb, url, body string, fields ...string) (*http.Response, string) {
	t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	resp := begin(t, client, verb, url, in, fields...)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v after %q", verb, url, err, b)
	}
	return resp, string(b)
}

// begin sends a request and returns when the answer has begun.
func begin(t *testing.T, client *http.Client, verb, url string, body io.Reader, fields ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(verb, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Add(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// overBoth runs a test over HTTP/1.1 and over HTTP/2.
func overBoth(t *testing.T, test func(t *testing.T, client *http.Client)) {
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) { test(t, clientOf(t, version)) })
	}
}

// imageOf is a google.api.HttpBody on the wire.
func imageOf(t testing.TB, contentType, data string) []byte {
	t.Helper()
	b, err := proto.Marshal(&httpbody.HttpBody{ContentType: contentType, Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// allocated is how much f has the heap hand out, bytes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
