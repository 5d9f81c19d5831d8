package rest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

func TestServerAnswersByThePathOfAMethod(t *testing.T) {
	for _, tt := range []struct {
		name, verb, path, body string
		method, message        string // what the backend gets
		kind                   string // of that message
	}{
		{"variables and query", "GET", "/v1/carts/7/items/tea?page=2", "", "/shop.v1.Cart/Get", `{"cart":"7","name":"tea","page":2}`, "GetRequest"},
		{"a body that is a field", "POST", "/v1/carts/7/items", `{"name":"tea"}`, "/shop.v1.Cart/Add", `{"cart":"7","item":{"name":"tea"}}`, "AddRequest"},
		{"a further binding", "PUT", "/v1/carts", `{"cart":"8"}`, "/shop.v1.Cart/Add", `{"cart":"8"}`, "AddRequest"},
		{"an encoded variable", "DELETE", "/v1/carts/a%2Fb/items/%C3%BC", "", "/shop.v1.Cart/Remove", `{"cart":"a/b","name":"ü"}`, "GetRequest"},
		{"the method's own path", "POST", "/shop.v1.Cart/Note", `{"cart":"9"}`, "/shop.v1.Cart/Note", `{"cart":"9"}`, "AddRequest"},
		{"the method's own path, annotated", "POST", "/shop.v1.Cart/Get", `{"cart":"9"}`, "/shop.v1.Cart/Get", `{"cart":"9"}`, "GetRequest"},
		{"no body at all", "POST", "/shop.v1.Cart/Note", "", "/shop.v1.Cart/Note", `{}`, "AddRequest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, client *http.Client) {
				got := make(chan []byte, 1)
				p := newShop(t, func(c *connectCall) *wire.Status {
					m, _ := c.recv()
					got <- m.Data
					c.send(Message{Data: nil})
					return nil
				})
				resp, body := ask(t, client, tt.verb, p.serve(t).URL+tt.path, tt.body, "Content-Type: application/json")
				if resp.StatusCode != 200 || !strings.HasPrefix(body, "{") {
					t.Fatalf("answer is %d %q, want 200", resp.StatusCode, body)
				}
				if resp.Header.Get("Content-Type") != "application/json" || resp.ContentLength != int64(len(body)) {
					t.Errorf("answer has the fields %v, want a type and a length", resp.Header)
				}
				if o := p.last(t).o; o.Method != tt.method || o.Codec != "proto" {
					t.Errorf("opened %+v, want %s", o, tt.method)
				}
				if message := inJSON(t, tt.kind, <-got); message != tt.message {
					t.Errorf("backend got %s, want %s", message, tt.message)
				}
			})
		})
	}
}

func TestServerTellsVerbsFromPathsThatAreNotServed(t *testing.T) {
	for _, tt := range []struct {
		name, verb, path string
		status           int
		allow            string
	}{
		{"nothing there", "GET", "/v2/carts", 404, ""},
		{"the path of another verb", "PATCH", "/v1/carts/7/items/tea", 405, "DELETE, GET, HEAD"},
		{"a verb that a field claims", "POST", "/v1/carts/7/items/tea", 405, "DELETE, GET, HEAD"},
		{"a method by GET", "GET", "/shop.v1.Cart/Note", 405, "POST"},
		{"what is no method", "POST", "/shop.v1.Cart/a/b", 404, ""},
		{"no route leads there", "DELETE", "/v1/carts/7/items/tea", 404, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newShop(t, reply(nil, nil))
			p.unrouted = map[string]bool{"/shop.v1.Cart/Remove": true}
			resp, body := ask(t, clientOf(t, 1), tt.verb, p.serve(t).URL+tt.path, "", "X-HTTP-Method-Override: DELETE")
			if resp.StatusCode != tt.status || resp.Header.Get("Allow") != tt.allow {
				t.Errorf("answer is %d, Allow %q, want %d, %q", resp.StatusCode, resp.Header.Get("Allow"), tt.status, tt.allow)
			}
			if !strings.Contains(body, `"message":"sluice: `) {
				t.Errorf("answer is %q, want an error of the gateway", body)
			}
		})
	}
}

func TestServerTellsThatMethodsAreCalledByPOST(t *testing.T) {
	for _, tt := range []struct {
		verb, path string
		status     int
		allow      string
	}{
		{"GET", "/shop.v1.Cart/Note", 405, "POST"},
		{"PUT", "/shop.v1.Cart/Get", 405, "POST"},
		{"GET", "/shop.v1.Cart/Nothing", 404, ""},
		{"POST", "/shop.v1.Cart/Note", 404, ""}, // no rule leads to it
	} {
		w := httptest.NewRecorder()
		NewServer(Options{}).NotFound(w, httptest.NewRequest(tt.verb, tt.path, nil), newShop(t, nil))
		if w.Code != tt.status || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: answer is %d, Allow %q, want %d, %q", tt.verb, tt.path, w.Code, w.Header().Get("Allow"), tt.status, tt.allow)
		}
	}
}

func TestServerLeavesWhatNoRouteLeadsTo(t *testing.T) {
	p := newShop(t, reply(nil, nil))
	p.unrouted = map[string]bool{"/shop.v1.Cart/Get": true}
	w := httptest.NewRecorder()
	if NewServer(Options{}).ServeREST(w, httptest.NewRequest("GET", "/v1/carts/7/items/tea", nil), p) {
		t.Errorf("the request was answered: %d %s", w.Code, w.Body)
	}
	if len(w.Header()) != 0 || w.Body.Len() != 0 {
		t.Errorf("something was written: %v %s", w.Header(), w.Body)
	}
}

func TestServerLearnsPathsThatItDoesNotKnow(t *testing.T) {
	p := newShop(t, reply(nil, nil))
	p.learnt, p.table = p.table, nil
	resp, body := ask(t, clientOf(t, 1), "GET", p.serve(t).URL+"/v1/carts/7/items/tea", "")
	if resp.StatusCode != 200 {
		t.Errorf("answer is %d %s, want that of the path that was learnt", resp.StatusCode, body)
	}
}

func TestServerSaysWhyNobodyServes(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		p := newShop(t, nil)
		p.refuse = &wire.Status{Code: wire.Unavailable, Message: "sluice: the backend has no endpoint", Gateway: true}
		url := p.serve(t).URL
		for _, path := range []string{"/v1/carts/7/items/tea", "/shop.v1.Cart/Get"} {
			verb := "GET"
			if strings.HasPrefix(path, "/shop") {
				verb = "POST"
			}
			resp, body := ask(t, client, verb, url+path, "")
			if resp.StatusCode != 503 || body != `{"code":14,"message":"sluice: the backend has no endpoint","details":[]}`+"\n" {
				t.Errorf("%s: answer is %d %s", path, resp.StatusCode, body)
			}
		}
	})
}

// untold is a shop whose backend cannot be told about.
type untold struct {
	*shop
	describe func(ctx context.Context) error
}

func (u untold) Method(ctx context.Context, _, _ string) (*schema.Method, error) {
	return nil, u.describe(ctx)
}

func TestServerEndsAnRPCThatNobodyDescribes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		code   wire.Code
		status int
	}{
		{"the backend has no such method", fmt.Errorf("describing: %w", schema.ErrNoMethod), wire.Unimplemented, 404},
		{"the backend has no reflection", fmt.Errorf("describing: %w: it has no reflection", schema.ErrNoSchema), wire.Unimplemented, 501},
		{"its reflection failed", fmt.Errorf("describing: %w", fmt.Errorf("%w: asking its reflection: %w", schema.ErrUnanswered, io.ErrUnexpectedEOF)), wire.Unavailable, 503},
		{"asking failed", io.ErrUnexpectedEOF, wire.Unavailable, 503},
		{"its reflection was too slow", fmt.Errorf("describing: %w: asking: %w", schema.ErrUnanswered, context.DeadlineExceeded), wire.Unavailable, 503},
		{"the caller has gone", fmt.Errorf("describing: %w: %w", schema.ErrUnanswered, context.Canceled), wire.Canceled, 499},
		{"the gateway refuses", &wire.Status{Code: wire.PermissionDenied, Message: "sluice: no"}, wire.PermissionDenied, 403},
		{"nobody says why", nil, wire.Unimplemented, 501},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newShop(t, reply(nil, nil))
			way := untold{p, func(context.Context) error { return tt.err }}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.code == wire.Canceled {
				cancel()
			}
			for _, path := range []string{"/v1/carts/7/items/tea", "/shop.v1.Cart/Get"} {
				w := httptest.NewRecorder()
				if strings.HasPrefix(path, "/v1") {
					NewServer(Options{}).ServeREST(w, httptest.NewRequestWithContext(ctx, "GET", path, nil), way)
				} else {
					NewServer(Options{}).ServeMethod(w, httptest.NewRequestWithContext(ctx, "POST", path, strings.NewReader("{}")), way)
				}
				st := p.aborted(t)
				if w.Code != tt.status || st == nil || st.Code != tt.code || !strings.HasPrefix(st.Message, "sluice: ") {
					t.Errorf("%s: answer is %d %s, RPC ended for %v, want %d, %v", path, w.Code, w.Body, st, tt.status, tt.code)
				}
			}
		})
	}
}

func TestServerWaitsForADescriptionNoLongerThanItsCaller(t *testing.T) {
	p := newShop(t, reply(nil, nil))
	way := untold{p, func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			return errors.New("there is no deadline")
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	synctest.Test(t, func(t *testing.T) {
		r, w := httptest.NewRequest("GET", "/v1/carts/7/items/tea", nil), httptest.NewRecorder()
		r.Header.Set("Grpc-Timeout", "1m")
		if NewServer(Options{}).ServeREST(w, r, way); w.Code != 504 {
			t.Errorf("answer is %d %s", w.Code, w.Body)
		}
	})
}

// A backend may be of a version that does not have the path, and has other numbers.
func TestServerSpeaksAsTheChosenBackendDoes(t *testing.T) {
	const get = `rpc Get(GetRequest) returns (Item) { option (google.api.http) = { get: "/v1/carts/{cart}/items/{name}" }; }`
	for _, tt := range []struct {
		name     string
		old, new string
		status   int
		message  string
	}{
		{"other numbers", "string cart = 1; string name = 2; int32 page = 3;", "string cart = 7; string name = 8; int32 page = 9;", 200, ""},
		{"no field for the path", "message GetRequest { string cart = 1; string name = 2;", "message GetRequest { string cart = 1;", 501, `variable {name}: `},
		{"a stream", "rpc Get(GetRequest) returns (Item)", "rpc Get(GetRequest) returns (stream Item)", 501, "streams"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			source := strings.Replace(cartProto, get, "rpc Get(GetRequest) returns (Item);", 1)
			other := codecSchema(t, map[string]string{"cart.proto": strings.Replace(source, tt.old, tt.new, 1)}).Method("/shop.v1.Cart/Get")
			requests := make(chan []byte, 1)
			p := newShop(t, func(c *connectCall) *wire.Status {
				if m, ok := c.recv(); ok {
					requests <- bytes.Clone(m.Data)
				}
				c.send(Message{})
				return nil
			})
			p.methods["/shop.v1.Cart/Get"] = other
			resp, body := ask(t, clientOf(t, 1), "GET", p.serve(t).URL+"/v1/carts/7/items/tea?page=3", "")
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.message) {
				t.Fatalf("answer is %d %s, want %d with %s", resp.StatusCode, body, tt.status, tt.message)
			}
			if tt.status != 200 {
				return
			}
			text, err := ToJSON(nil, other.Input, <-requests, other.Schema)
			if err != nil || string(text) != `{"cart":"7","name":"tea","page":3}` {
				t.Errorf("the backend got %s, %v", text, err)
			}
		})
	}
}

func TestServerTakesDeadlinesFromFields(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fields  []string
		want    time.Duration
		message string // of the refusal
	}{
		{"none", nil, 0, ""},
		{"of gRPC", []string{"Grpc-Timeout: 1500m"}, 1500 * time.Millisecond, ""},
		{"in seconds", []string{"X-Server-Timeout: 2.5"}, 2500 * time.Millisecond, ""},
		{"the shorter", []string{"X-Server-Timeout: 2", "Grpc-Timeout: 3S"}, 2 * time.Second, ""},
		{"the shorter, other way round", []string{"X-Server-Timeout: 4", "Grpc-Timeout: 3S"}, 3 * time.Second, ""},
		{"no time left", []string{"X-Server-Timeout: 0"}, 1, ""},
		{"no unit", []string{"Grpc-Timeout: 15"}, 0, `header field Grpc-Timeout is \"15\"`},
		{"negative", []string{"X-Server-Timeout: -1"}, 0, `header field X-Server-Timeout is \"-1\"`},
		{"with an exponent", []string{"X-Server-Timeout: 1e3"}, 0, "want seconds"},
		{"not a number", []string{"X-Server-Timeout: NaN"}, 0, "want seconds"},
		{"endless", []string{"X-Server-Timeout: 1" + strings.Repeat("0", 30)}, 0, "want seconds"},
		{"twice", []string{"Grpc-Timeout: 1S", "Grpc-Timeout: 2S"}, 0, "want up to 8 digits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/v1/carts/7/items/tea", nil)
			for _, f := range tt.fields {
				name, value, _ := strings.Cut(f, ": ")
				r.Header.Add(name, value)
			}
			p := newShop(t, reply(nil, nil))
			w := httptest.NewRecorder()
			NewServer(Options{}).ServeREST(w, r, p)
			if tt.message != "" {
				if w.Code != 400 || !strings.Contains(w.Body.String(), tt.message) {
					t.Errorf("answer is %d %s, want 400 with %q", w.Code, w.Body, tt.message)
				}
				return
			}
			if o := p.last(t).o; o.Timeout != tt.want || len(o.Metadata) != 0 {
				t.Errorf("opened with timeout %v and metadata %v, want %v and none", o.Timeout, o.Metadata, tt.want)
			}
		})
	}
}

func TestServerPassesMetadata(t *testing.T) {
	backend := func(c *connectCall) *wire.Status {
		c.recv()
		c.header = http.Header{
			"X-Cart": {"7", "8"}, "X-Seal-Bin": {"AAE"}, "Content-Length": {"3"}, "Content-Type": {"text/html"},
			"Grpc-Encoding": {"gzip"}, "Connection": {"close"}, "Transfer-Encoding": {"x"}, "Content-Disposition": {"attachment"},
		}
		c.trailer = http.Header{"X-Cost": {"12"}, "Grpc-Status": {"0"}}
		c.send(Message{})
		return nil
	}
	for _, tt := range []struct {
		name            string
		fields          []string
		header, trailer http.Header
	}{
		{"as fields", nil, http.Header{"X-Cart": {"7", "8"}, "X-Seal-Bin": {"AAE"}, "Grpc-Trailer-X-Cost": {"12"}}, nil},
		{"as trailers", []string{"TE: trailers"}, http.Header{"X-Cart": {"7", "8"}, "X-Seal-Bin": {"AAE"}}, http.Header{"X-Cost": {"12"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, client *http.Client) {
				resp, body := ask(t, client, "GET", newShop(t, backend).serve(t).URL+"/v1/carts/7/items/tea", "", tt.fields...)
				if body == "" {
					t.Error("no body")
				}
				for _, own := range []string{"Date", "Content-Type", "X-Content-Type-Options", "Content-Length"} {
					resp.Header.Del(own)
				}
				if !maps.EqualFunc(resp.Header, tt.header, slices.Equal) {
					t.Errorf("fields are %v, want %v", resp.Header, tt.header)
				}
				if !maps.EqualFunc(resp.Trailer, tt.trailer, slices.Equal) {
					t.Errorf("trailers are %v, want %v", resp.Trailer, tt.trailer)
				}
			})
		})
	}
}

func TestServerLetsNoBackendSpeakOfCORSWhereTheGatewayDoes(t *testing.T) {
	p := newShop(t, func(c *connectCall) *wire.Status {
		c.recv()
		c.header = http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Max-Age": {"9"}, "X-Cart": {"7"}}
		c.send(Message{})
		return nil
	})
	for _, own := range []string{"", "https://shop.example.com"} {
		w := httptest.NewRecorder()
		if own != "" {
			w.Header().Set("Access-Control-Allow-Origin", own)
		}
		NewServer(Options{}).ServeREST(w, httptest.NewRequest("GET", "/v1/carts/7/items/tea", nil), p)
		want := http.Header{"Access-Control-Allow-Origin": {"*"}, "Access-Control-Max-Age": {"9"}}
		if own != "" {
			want = http.Header{"Access-Control-Allow-Origin": {own}}
		}
		got := maps.Clone(w.Header())
		maps.DeleteFunc(got, func(name string, _ []string) bool { return !strings.HasPrefix(name, "Access-Control-") })
		if !maps.EqualFunc(got, want, slices.Equal) || w.Header().Get("X-Cart") != "7" {
			t.Errorf("fields are %v, want %v among them", w.Header(), want)
		}
	}
}

func TestServerTellsErrorsOfTheBackend(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		p := newShop(t, func(c *connectCall) *wire.Status {
			c.recv()
			c.trailer = http.Header{"X-Cost": {"12"}, "Www-Authenticate": {`Bearer realm="shop"`}}
			return &wire.Status{Code: wire.Unauthenticated, Message: "who?", Details: detailed(t, &errdetails.ErrorInfo{Reason: "NONE"})}
		})
		resp, body := ask(t, client, "GET", p.serve(t).URL+"/v1/carts/7/items/tea", "")
		if resp.StatusCode != 401 || compact(t, []byte(body)) != `{"code":16,"message":"who?","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"NONE"}]}` {
			t.Errorf("answer is %d %s", resp.StatusCode, body)
		}
		if resp.Header.Get("Www-Authenticate") != `Bearer realm="shop"` || resp.Header.Get("X-Cost") != "12" {
			t.Errorf("fields are %v, want the backend's challenge and metadata", resp.Header)
		}
	})
}

func TestServerAsksForExactlyOneMessage(t *testing.T) {
	item := onWire(t, "Item", `{"name":"tea"}`)
	send := func(st *wire.Status, messages ...Message) func(c *connectCall) *wire.Status {
		return func(c *connectCall) *wire.Status {
			c.recv()
			for _, m := range messages {
				c.send(m)
			}
			return st
		}
	}
	for _, tt := range []struct {
		name    string
		backend func(*connectCall) *wire.Status
		limit   int
		status  int
		message string
	}{
		{"none", send(nil), 0, 500, "sluice: the backend ended the RPC without a message"},
		{"two", send(nil, Message{Data: item}, Message{Data: item}), 0, 500, "sluice: the backend answered with more than one message"},
		{"an error behind a message", send(&wire.Status{Code: wire.Aborted, Message: "again"}, Message{Data: item}), 0, 409, "again"},
		{"a compressed one", send(nil, Message{Data: item, Compressed: true}), 0, 500, "sluice: the backend compressed a message"},
		{"what is no message", send(nil, Message{Data: []byte{0x0a, 0x7f}}), 0, 500, "sluice: "},
		{"a large one", send(nil, Message{Data: make([]byte, 2000)}), 1999, 500, "larger than 1999 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newShop(t, tt.backend)
			p.limits.MaxMessage = tt.limit
			resp, body := ask(t, clientOf(t, 1), "GET", p.serve(t).URL+"/v1/carts/7/items/tea", "")
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.message) {
				t.Errorf("answer is %d %s, want %d with %q", resp.StatusCode, body, tt.status, tt.message)
			}
			if gateway := strings.Contains(tt.message, "sluice"); gateway && p.aborted(t) == nil {
				t.Error("the RPC was not ended for it")
			}
		})
	}
}

func TestServerRefusesBodiesThatItCannotRead(t *testing.T) {
	zipped := func(size int) string { return string(gzipped(nil, make([]byte, size))) }
	for _, tt := range []struct {
		name, verb, path, body string
		fields                 []string
		status                 int
		message                string
	}{
		{"a form", "POST", "/v1/carts/7/items", "a=b", []string{"Content-Type: application/x-www-form-urlencoded"}, 415, "want application/json (curl: -H 'content-type: application/json')"},
		{"no type", "POST", "/v1/carts/7/items", "{}", nil, 415, "without Content-Type"},
		{"two types", "POST", "/v1/carts/7/items", "{}", []string{"Content-Type: application/json", "Content-Type: text/html"}, 415, "want one"},
		{"lines for one message", "POST", "/v1/carts/7/items", "{}", []string{"Content-Type: application/x-ndjson"}, 415, "want application/json"},
		{"another charset", "POST", "/v1/carts/7/items", "{}", []string{"Content-Type: application/json; charset=latin1"}, 415, "want utf-8"},
		{"a type that is none", "POST", "/v1/carts/7/items", "{}", []string{"Content-Type: application/json; charset"}, 415, "want application/json"},
		{"another encoding", "POST", "/v1/carts/7/items", "{}", []string{"Content-Type: application/json", "Content-Encoding: br"}, 415, "want gzip"},
		{"two encodings", "POST", "/v1/carts/7/items", "{}", []string{"Content-Type: application/json", "Content-Encoding: gzip, gzip"}, 415, "want gzip"},
		{"what is not gzip", "POST", "/v1/carts/7/items", "{}", []string{"Content-Type: application/json", "Content-Encoding: gzip"}, 400, "decompressing"},
		{"gzip that is cut off", "POST", "/v1/carts/7/items", zipped(500)[:20], []string{"Content-Type: application/json", "Content-Encoding: gzip"}, 400, "decompressing"},
		{"too large", "POST", "/v1/carts/7/items", strings.Repeat(" ", 2001), []string{"Content-Type: application/json"}, 413, "larger than 2000 bytes"},
		{"too large when decompressed", "POST", "/v1/carts/7/items", zipped(1 << 20), []string{"Content-Type: application/json", "Content-Encoding: gzip"}, 413, "larger than 2000 bytes, decompressed"},
		{"a message larger than its JSON", "POST", "/v1/carts/7/items", `{"weights":[` + strings.Repeat("0,", 900) + `0]}`, []string{"Content-Type: application/json"}, 413, "larger than the limit"},
		{"no JSON", "POST", "/v1/carts/7/items", "{", []string{"Content-Type: application/json"}, 400, "sluice: "},
		{"not UTF-8", "POST", "/v1/carts/7/items", "{\"name\":\"\xff\"}", []string{"Content-Type: application/json"}, 400, "sluice: "},
		{"a name twice", "POST", "/v1/carts/7/items", `{"name":"a","name":"b"}`, []string{"Content-Type: application/json"}, 400, "name"},
		{"a number out of range", "POST", "/v1/carts/7/items", `{"count":3000000000}`, []string{"Content-Type: application/json"}, 400, "count"},
		{"a number out of range in the query", "GET", "/v1/carts/7/items/tea?page=3000000000", "", nil, 400, "page"},
		{"two documents", "POST", "/v1/carts/7/items", `{} {}`, []string{"Content-Type: application/json"}, 400, "sluice: "},
		{"deep", "POST", "/v1/carts/7/items", strings.Repeat("[", 1500), []string{"Content-Type: application/json"}, 400, "sluice: "},
		{"an unknown field", "POST", "/v1/carts/7/items", `{"colour":"red"}`, []string{"Content-Type: application/json"}, 400, "colour"},
		{"a body that has no place", "DELETE", "/v1/carts/7/items/tea", `{}`, []string{"Content-Type: application/json"}, 400, "takes no body"},
		{"an unknown parameter", "GET", "/v1/carts/7/items/tea?colour=red", "", nil, 400, "colour"},
		{"a parameter of a method", "POST", "/shop.v1.Cart/Note?cart=7", "{}", []string{"Content-Type: application/json"}, 400, "cart"},
		{"metadata that is not base64", "GET", "/v1/carts/7/items/tea", "", []string{"X-Seal-Bin: !"}, 400, "base64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, client *http.Client) {
				p := newShop(t, reply(nil, nil))
				p.limits.MaxMessage = 2000
				url := p.serve(t).URL + tt.path
				for _, chunked := range []bool{false, true} {
					var in io.Reader
					if tt.body != "" {
						in = strings.NewReader(tt.body)
						if chunked {
							in = iotest.OneByteReader(in) // whose length net/http does not know
						}
					}
					resp := begin(t, client, tt.verb, url, in, tt.fields...)
					b, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if resp.StatusCode != tt.status || !strings.Contains(string(b), tt.message) {
						t.Errorf("chunked %t: answer is %d %s, want %d with %q", chunked, resp.StatusCode, b, tt.status, tt.message)
					}
				}
			})
		})
	}
}

func TestServerTakesBodiesInEveryFormThatItSays(t *testing.T) {
	item := `{"name":"tea"}`
	for _, tt := range []struct {
		name, body string
		fields     []string
	}{
		{"with a charset", item, []string{"Content-Type: application/json; charset=UTF-8"}},
		{"in capitals", item, []string{"Content-Type: Application/JSON"}},
		{"compressed", string(gzipped(nil, []byte(item))), []string{"Content-Type: application/json", "Content-Encoding: gzip"}},
		{"not compressed, in so many words", item, []string{"Content-Type: application/json", "Content-Encoding: identity"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan []byte, 1)
			p := newShop(t, func(c *connectCall) *wire.Status {
				m, _ := c.recv()
				got <- m.Data
				c.send(Message{})
				return nil
			})
			resp, body := ask(t, clientOf(t, 1), "POST", p.serve(t).URL+"/v1/carts/7/items", tt.body, tt.fields...)
			if resp.StatusCode != 200 {
				t.Fatalf("answer is %d %s", resp.StatusCode, body)
			}
			if m := inJSON(t, "AddRequest", <-got); m != `{"cart":"7","item":{"name":"tea"}}` {
				t.Errorf("backend got %s", m)
			}
		})
	}
}

func TestServerLetsUnknownThingsPassWhereTheRouteSaysSo(t *testing.T) {
	p := newShop(t, reply(nil, nil))
	p.limits = Limits{MaxMessage: 1 << 20, IgnoreUnknownFields: true, IgnoreUnknownParameters: true}
	url := p.serve(t).URL
	resp, body := ask(t, clientOf(t, 1), "DELETE", url+"/v1/carts/7/items/tea?colour=red", `{"a":1}`, "Content-Type: application/json")
	if resp.StatusCode != 200 {
		t.Errorf("answer is %d %s", resp.StatusCode, body)
	}
}

// A bomb's answer comes after no more than the limit has been decompressed.
func TestServerDecompressesWithinItsLimit(t *testing.T) {
	p := newShop(t, reply(nil, nil))
	p.limits.MaxMessage = 4 << 20
	bomb := gzipped(nil, make([]byte, 256<<20))
	r := httptest.NewRequest("POST", "/v1/carts/7/items", bytes.NewReader(bomb))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Encoding", "gzip")
	w := httptest.NewRecorder()
	grown := allocated(func() { NewServer(Options{}).ServeREST(w, r, p) })
	if w.Code != 413 {
		t.Errorf("answer is %d %s, want 413", w.Code, w.Body)
	}
	if grown > 24<<20 {
		t.Errorf("%d bytes were allocated for a limit of 4 MiB", grown)
	}
}

// slowBody is a body of which nothing more comes, and its connection.
type slowBody struct {
	*httptest.ResponseRecorder
	expired chan struct{}
	timer   *time.Timer
}

func (b *slowBody) SetReadDeadline(at time.Time) error {
	if b.timer != nil {
		b.timer.Stop()
	}
	if !at.IsZero() {
		b.timer = time.AfterFunc(time.Until(at), func() { close(b.expired) })
	}
	return nil
}

func (b *slowBody) Read([]byte) (int, error) {
	<-b.expired
	return 0, context.DeadlineExceeded
}

func TestServerDoesNotWaitForABodyForEver(t *testing.T) {
	for _, tt := range []struct {
		name, field string
		status      int
		after       time.Duration
	}{
		{"nothing comes", "", 408, progressTime},
		{"the caller's deadline passes", "2.5", 504, 2500 * time.Millisecond},
		{"the caller's deadline is far", "900", 408, progressTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newShop(t, reply(nil, nil))
				w := &slowBody{ResponseRecorder: httptest.NewRecorder(), expired: make(chan struct{})}
				r := httptest.NewRequest("POST", "/v1/carts/7/items", w)
				r.ContentLength = 100
				r.Header.Set("Content-Type", "application/json")
				if tt.field != "" {
					r.Header.Set("X-Server-Timeout", tt.field)
				}
				start := time.Now()
				NewServer(Options{}).ServeREST(w, r, p)
				if took := time.Since(start); w.Code != tt.status || took != tt.after {
					t.Errorf("answer is %d %s after %v, want %d after %v", w.Code, w.Body, took, tt.status, tt.after)
				}
			})
		})
	}
}

// A body that says that it is too large is not waited for.
func TestServerDoesNotReadABodyThatIsTooLarge(t *testing.T) {
	p := newShop(t, reply(nil, nil))
	r := httptest.NewRequest("POST", "/v1/carts/7/items", broken{})
	r.ContentLength = DefaultMaxMessage + 1
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	NewServer(Options{}).ServeREST(w, r, p)
	if w.Code != 413 {
		t.Errorf("answer is %d %s, want 413", w.Code, w.Body)
	}
}

func TestServerAnswersHEADWithoutContent(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		p := newShop(t, func(c *connectCall) *wire.Status {
			c.recv()
			c.send(Message{})
			return nil
		})
		url := p.serve(t).URL
		get, body := ask(t, client, "GET", url+"/v1/carts/7/items/tea", "")
		head, nothing := ask(t, client, "HEAD", url+"/v1/carts/7/items/tea", "")
		if head.StatusCode != 200 || nothing != "" || head.ContentLength != int64(len(body)) || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			t.Errorf("HEAD is %d %v %q, GET %d %v", head.StatusCode, head.Header, nothing, get.StatusCode, get.Header)
		}
		stream, nothing := ask(t, client, "HEAD", url+"/v1/carts/7:watch", "")
		if stream.StatusCode != 200 || nothing != "" || stream.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("HEAD of a stream is %d %v %q", stream.StatusCode, stream.Header, nothing)
		}
	})
}

func TestServerGivesHTTPBodyAsItIs(t *testing.T) {
	for _, tt := range []struct{ name, given, want string }{
		{"a type", "image/png", "image/png"},
		{"a type with parameters", "text/html; charset=utf-8", "text/html; charset=utf-8"},
		{"none", "", "application/octet-stream"},
		{"one that is none", "a\r\nb", "application/octet-stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newShop(t, func(c *connectCall) *wire.Status {
				c.recv()
				c.header = http.Header{"Content-Disposition": {`attachment; filename="a.png"`}, "Content-Length": {"1"}}
				c.send(Message{Data: imageOf(t, tt.given, "\x89PNG")})
				return nil
			})
			resp, body := ask(t, clientOf(t, 1), "GET", p.serve(t).URL+"/v1/receipts/7", "")
			if resp.StatusCode != 200 || body != "\x89PNG" || resp.Header.Get("Content-Type") != tt.want {
				t.Errorf("answer is %d %v %q, want %s", resp.StatusCode, resp.Header, body, tt.want)
			}
			if resp.Header.Get("Content-Disposition") == "" {
				t.Error("the backend's Content-Disposition is lost")
			}
		})
	}
}

func TestServerCompressesWhatIsWorthIt(t *testing.T) {
	large := onWire(t, "Item", `{"name":"`+strings.Repeat("tea ", 1000)+`"}`)
	small := onWire(t, "Item", `{"name":"tea"}`)
	for _, tt := range []struct {
		name   string
		item   []byte
		accept string
		zipped bool
	}{
		{"large", large, "gzip", true},
		{"large, among others", large, "br, gzip;q=0.5, deflate", true},
		{"large, anything", large, "*", true},
		{"small", small, "gzip", false},
		{"nobody asked", large, "", false},
		{"not wanted", large, "gzip;q=0, br", false},
		{"as it is wanted more", large, "gzip;q=0.5, identity;q=0.8", false},
		{"a weight that is none", large, "gzip;q=much", false},
		{"more than all", large, "gzip;q=1.1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, client *http.Client) {
				var fields []string
				if tt.accept != "" {
					fields = []string{"Accept-Encoding: " + tt.accept}
				}
				resp, body := ask(t, client, "GET", newShop(t, reply(tt.item, nil)).serve(t).URL+"/v1/carts/7/items/tea", "", fields...)
				if got := resp.Header.Get("Content-Encoding") == "gzip"; got != tt.zipped {
					t.Fatalf("fields are %v, want compressed %t", resp.Header, tt.zipped)
				}
				if tt.zipped {
					body = unzipped(t, body)
				}
				if !strings.Contains(body, `"tea`) {
					t.Errorf("body is %q", body)
				}
				if vary := resp.Header.Get("Vary"); (vary == "Accept-Encoding") != (len(tt.item) == len(large)) {
					t.Errorf("Vary is %q", vary)
				}
			})
		})
	}
}

func unzipped(t *testing.T, s string) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func FuzzTimeout(f *testing.F) {
	f.Add("1.5")
	f.Add("-1")
	f.Add("9223372036")
	f.Add(".5")
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := parseSeconds(s)
		if d < 0 || !ok && d != 0 {
			t.Errorf("%q is %v, %t", s, d, ok)
		}
		if ok && strings.Trim(s, "0123456789.") != "" {
			t.Errorf("%q is taken for seconds", s)
		}
	})
}

func FuzzWeighted(f *testing.F) {
	f.Add("gzip;q=0.5")
	f.Add("text/event-stream ; a=b;q=1.000")
	f.Add("*;q=")
	f.Fuzz(func(t *testing.T, element string) {
		if name, q, ok := weighted(element); ok && (name == "" || q < 0 || q > 1000) {
			t.Errorf("%q is %q with a weight of %d", element, name, q)
		}
	})
}
