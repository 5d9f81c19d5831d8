package rest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// messaging are the services of the examples of google/api/http.proto, and some more.
var messaging = map[string]string{"messaging.proto": `
syntax = "proto3";
package messaging.v1;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

message Message { string name = 1; string text = 2; }
message Note {
  string message_id = 1;
  string text = 2;
  Note reply = 3;
  map<string, string> marks = 4;
  repeated string tags = 5;
  google.protobuf.Struct facts = 6;
  google.protobuf.Timestamp sent_at = 7;
  google.protobuf.StringValue title = 8;
  int32 size = 9;
  oneof kind { string mail = 10; string post = 11; }
}
message GetByName { string name = 1; }
message GetMessage {
  message SubMessage { string subfield = 1; }
  string message_id = 1;
  int64 revision = 2;
  SubMessage sub = 3;
  string user_id = 4;
}
message UpdateMessage { string message_id = 1; Note message = 2; google.protobuf.FieldMask update_mask = 3; repeated string labels = 4; int32 count = 5; map<string, int32> counts = 6; }
message Upload { string name = 1; google.api.HttpBody file = 2; }
message Answer { repeated Message list = 1; map<string, int32> counts = 2; int64 total = 3; Message one = 4; google.api.HttpBody file = 5; }

service Messaging {
  rpc ByName(GetByName) returns (Message) { option (google.api.http) = { get: "/v1/{name=messages/*}" }; }
  rpc Get(GetMessage) returns (Message) {
    option (google.api.http) = {
      get: "/v1/ids/{message_id}"
      additional_bindings { get: "/v1/users/{user_id}/messages/{message_id}" }
      additional_bindings { get: "/v1/subs/{message_id}/{sub.subfield}" }
      additional_bindings { custom: { kind: "FETCH" path: "/v1/ids/{message_id}" } }
    };
  }
  rpc Update(UpdateMessage) returns (Message) {
    option (google.api.http) = {
      patch: "/v1/messages/{message_id}" body: "message"
      additional_bindings { put: "/v1/messages/{message.message_id}" body: "message" }
      additional_bindings { put: "/v1/labels/{message_id}" body: "labels" }
      additional_bindings { put: "/v1/count/{message_id}" body: "count" }
      additional_bindings { put: "/v1/counts/{message_id}" body: "counts" }
    };
  }
  rpc Put(Note) returns (Message) {
    option (google.api.http) = { patch: "/v1/notes/{message_id}" body: "*" additional_bindings { post: "/v1/sizes/{size}:set" body: "*" } additional_bindings { post: "/v1/times/{sent_at}/{title}" body: "*" } };
  }
  rpc Send(Upload) returns (google.api.HttpBody) { option (google.api.http) = { post: "/v1/files/{name=**}" body: "file" }; }
  rpc Raw(google.api.HttpBody) returns (Answer) { option (google.api.http) = { post: "/v1/raw" body: "*" }; }
  rpc List(GetByName) returns (Answer) {
    option (google.api.http) = {
      get: "/v1/list" response_body: "list"
      additional_bindings { get: "/v1/answer" }
      additional_bindings { get: "/v1/answer/counts" response_body: "counts" }
      additional_bindings { get: "/v1/answer/total" response_body: "total" }
      additional_bindings { get: "/v1/answer/one" response_body: "one" }
      additional_bindings { get: "/v1/answer/file" response_body: "file" }
    };
  }
}
`}

// messagingTable is the table of the service, with its schema.
func messagingTable(t testing.TB) (*schema.Schema, *Table) {
	t.Helper()
	s := codecSchema(t, messaging)
	table, faults := NewTable(s.Methods())
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return s, table
}

// only is the one match of a request.
func only(t testing.TB, table *Table, verb, path string) Match {
	t.Helper()
	found, allowed := table.Match(verb, path)
	if len(found) == 0 {
		t.Fatalf("%s %s has no match, allowed %q", verb, path, allowed)
	}
	return found[0]
}

// sameText tells whether a message on the wire is the one that a text means.
func sameText(t testing.TB, s *schema.Schema, m protoreflect.MessageType, msg []byte, text string) bool {
	t.Helper()
	got, want := dynamicpb.NewMessage(m.Descriptor()), dynamicpb.NewMessage(m.Descriptor())
	if err := proto.Unmarshal(msg, got); err != nil {
		t.Fatalf("%x: %v", msg, err)
	}
	if err := (prototext.UnmarshalOptions{Resolver: s}).Unmarshal([]byte(text), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Logf("got %v", got)
		return false
	}
	return true
}

func TestEndpointDecodesTheExamplesOfHTTPProto(t *testing.T) {
	s, table := messagingTable(t)
	tests := []struct{ request, body, method, want string }{
		{"GET /v1/messages/123456", "", "ByName", `name: "messages/123456"`},
		{"GET /v1/ids/123456?revision=2&sub.subfield=foo", "", "Get", `message_id: "123456" revision: 2 sub { subfield: "foo" }`},
		{"GET /v1/users/me/messages/123456", "", "Get", `user_id: "me" message_id: "123456"`},
		{"GET /v1/subs/123456/foo", "", "Get", `message_id: "123456" sub { subfield: "foo" }`},
		{"FETCH /v1/ids/123456", "", "Get", `message_id: "123456"`},
		{"PATCH /v1/messages/123456", `{ "text": "Hi!" }`, "Update", `message_id: "123456" message { text: "Hi!" } update_mask { paths: "text" }`},
		{"PATCH /v1/notes/123456", `{ "text": "Hi!" }`, "Put", `message_id: "123456" text: "Hi!"`},
		// Variables of one segment are decoded, those of several keep their slashes apart.
		{"GET /v1/ids/a%2Fb%20c%3Ad", "", "Get", `message_id: "a/b c:d"`},
		{"GET /v1/messages/a%2Fb%20c", "", "ByName", `name: "messages/a%2Fb c"`},
		// The path's value goes before the body's.
		{"PATCH /v1/notes/1", `{"messageId":"2","text":"x"}`, "Put", `message_id: "1" text: "x"`},
		{"POST /v1/sizes/0:set", `{"size":5,"text":"x"}`, "Put", `size: 0 text: "x"`},
		{"POST /v1/times/1970-01-01T00:00:00Z/a", `{"sentAt":"2024-01-01T00:00:00.5Z","title":"b"}`, "Put", `sent_at {} title { value: "a" }`},
		{"PUT /v1/messages/1", `{"messageId":"2","text":"x"}`, "Update", `message { message_id: "1" text: "x" }`},
		// A body that is one field, whatever it is.
		{"PUT /v1/messages/1?labels=a&labels=b", `{"text":"x"}`, "Update", `message { message_id: "1" text: "x" } labels: "a" labels: "b"`},
		{"PUT /v1/labels/1", `["a","b"]`, "Update", `message_id: "1" labels: "a" labels: "b"`},
		{"PUT /v1/labels/1?message.text=x", `null`, "Update", `message_id: "1" message { text: "x" }`},
		{"PUT /v1/count/1", `7`, "Update", `message_id: "1" count: 7`},
		{"PUT /v1/counts/1", `{"a":1}`, "Update", `message_id: "1" counts { key: "a" value: 1 }`},
		{"PUT /v1/counts/1", ` `, "Update", `message_id: "1"`},
		{"PUT /v1/counts/1", ``, "Update", `message_id: "1"`},
	}
	for _, test := range tests {
		verb, target, _ := strings.Cut(test.request, " ")
		path, query, _ := strings.Cut(target, "?")
		m := only(t, table, verb, path)
		if !strings.HasSuffix(m.Method.Path, "/"+test.method) {
			t.Errorf("%s leads to %s, want %s", test.request, m.Method.Path, test.method)
			continue
		}
		msg, err := m.Decode([]byte("before"), m, query, []byte(test.body), "application/json", Limits{})
		if err != nil || !bytes.HasPrefix(msg, []byte("before")) {
			t.Errorf("%s: %v", test.request, err)
			continue
		}
		if !sameText(t, s, m.Method.Input, msg[len("before"):], test.want) {
			t.Errorf("%s with body %s, want %s", test.request, test.body, test.want)
		}
	}
}

func TestEndpointRefusesWhatItsMethodDoesNotTake(t *testing.T) {
	_, table := messagingTable(t)
	tests := []struct {
		request, body, want string
		code                wire.Code
		http                int
	}{
		{"GET /v1/ids/1", `{"revision":1}`, "this path takes no body: all is said by path and query", wire.InvalidArgument, 400},
		{"POST /v1/sizes/big:set", ``, `path variable "size": "big" is no integer of 32 bits`, wire.InvalidArgument, 400},
		{"PATCH /v1/notes/1", `{"txt":1}`, `field "txt": messaging.v1.Note has no such field (line 1, column 2)`, wire.InvalidArgument, 400},
		{"PATCH /v1/messages/1", `{"reply":{"txt":1}}`, `field "reply.txt": messaging.v1.Note has no such field (line 1, column 11)`, wire.InvalidArgument, 400},
		{"PATCH /v1/notes/1", `{"text":"` + strings.Repeat("x", 2000) + `"}`, "field \"text\": the message is larger than the limit", wire.ResourceExhausted, 413},
		{"POST /v1/raw", strings.Repeat("x", 2000), "reading the JSON body: the message has 2021 bytes, limit 1000", wire.ResourceExhausted, 413},
		{"PUT /v1/count/1", `7 8`, "reading the JSON body: more text after the end of the document (line 1, column 3)", wire.InvalidArgument, 400},
	}
	for _, test := range tests {
		verb, path, _ := strings.Cut(test.request, " ")
		m := only(t, table, verb, path)
		msg, err := m.Decode(nil, m, "", []byte(test.body), "application/json", Limits{MaxMessage: 1000})
		st, ok := err.(*wire.Status)
		if !ok || st.Message != "sluice: "+test.want || st.Code != test.code || st.HTTPStatus() != test.http || len(msg) != 0 {
			t.Errorf("%s with %.40s: %x, %v, want %v %q", test.request, test.body, msg, err, test.code, test.want)
		}
	}
}

func TestEndpointFillsTheMaskOfAPatch(t *testing.T) {
	s, table := messagingTable(t)
	note := codecMessage(t, s, "messaging.v1.Note")
	tests := []struct{ query, body, want string }{
		{"", `{"text":"x"}`, "text"},
		{"", `{"text":null,"messageId":"1"}`, "message_id text"},
		{"", `{"reply":{"reply":{"text":"x"},"size":1},"size":2}`, "reply.reply.text reply.size size"},
		{"", `{"reply":{}}`, "reply"},
		{"", `{"marks":{"a":"b"},"tags":["x"]}`, "marks tags"},
		{"", `{"sentAt":"2024-01-01T00:00:00Z","title":"x","mail":"y"}`, "mail sent_at title"},
		{"", `{}`, ""},
		{"", ``, ""},
		{"updateMask=text", `{"text":"x","size":1}`, "text"},
		{"update_mask=sentAt,size", `{"text":"x"}`, "sent_at size"},
	}
	for _, test := range tests {
		m := only(t, table, "PATCH", "/v1/messages/1")
		msg, err := m.Decode(nil, m, test.query, []byte(test.body), "application/json", Limits{})
		if err != nil {
			t.Errorf("%s: %v", test.body, err)
			continue
		}
		read := dynamicpb.NewMessage(m.Method.Input.Descriptor())
		if err := proto.Unmarshal(msg, read); err != nil {
			t.Fatal(err)
		}
		mask := new(fieldmaskpb.FieldMask)
		if f := m.mask.desc; read.Has(f) {
			encoded, _ := proto.Marshal(read.Get(f).Message().Interface())
			_ = proto.Unmarshal(encoded, mask)
		} else {
			t.Errorf("%s: no mask at all", test.body)
		}
		want := strings.Fields(test.want)
		if test.query == "" {
			oracle, err := runtime.FieldMaskFromRequestBody(strings.NewReader(test.body), dynamicpb.NewMessage(note.Descriptor()))
			if err != nil {
				t.Fatal(err)
			}
			want = oracle.GetPaths()
		}
		if got := mask.GetPaths(); fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(strings.Fields(test.want)) {
			t.Errorf("%s?%s: mask %q, want %q", test.body, test.query, got, want)
		}
	}
	// A Struct's names are no fields, so that the path ends there; grpc-gateway goes on.
	facts := only(t, table, "PATCH", "/v1/messages/1")
	got, err := facts.Decode(nil, facts, "", []byte(`{"text":"x","facts":{"a":{"b":1}}}`), "", Limits{})
	if err != nil || !sameText(t, s, facts.Method.Input, got, `message_id: "1" message { text: "x" facts { fields { key: "a" value { struct_value { fields { key: "b" value { number_value: 1 } } } } } } } update_mask { paths: "facts" paths: "text" }`) {
		t.Errorf("with a Struct: %x, %v", got, err)
	}
	// Unknown fields that are let pass are not in the mask, and PUT and body "*" have none.
	m := only(t, table, "PATCH", "/v1/messages/1")
	msg, err := m.Decode(nil, m, "", []byte(`{"text":"x","nope":{"a":[1]}}`), "", Limits{IgnoreUnknownFields: true})
	if err != nil || !sameText(t, s, m.Method.Input, msg, `message_id: "1" message { text: "x" } update_mask { paths: "text" }`) {
		t.Errorf("with an unknown field: %x, %v", msg, err)
	}
	if only(t, table, "PUT", "/v1/messages/1").mask != nil || only(t, table, "PATCH", "/v1/notes/1").mask != nil {
		t.Error("a PUT, or a PATCH of the whole message, fills in a mask")
	}
}

// Every leaf has the names of all that it lies in, so that a mask may be many times what
// it is the mask of.
func TestEndpointBoundsTheMaskOfAPatch(t *testing.T) {
	_, table := messagingTable(t)
	m := only(t, table, "PATCH", "/v1/messages/1")
	body := `{}`
	for range 95 {
		body = `{"messageId":"1","text":"x","tags":["a"],"marks":{"a":"b"},"title":"x","size":1,"mail":"y","reply":` + body + `}`
	}
	facts := `{"facts":{"` + strings.Repeat("a", 3000) + `":{"`
	for i := range 3000 {
		facts += fmt.Sprintf(`%d":1,"`, i)
	}
	facts += `z":1}}}`
	for _, test := range []struct {
		name, body string
		limit      int
		code       wire.Code
		http       int
	}{
		{"a tree of messages", body, 20_000, wire.ResourceExhausted, 413},
		{"a tree of messages that has space", body, 1 << 20, wire.OK, 200},
		{"a Struct with long names", facts, 200_000, wire.OK, 200},
	} {
		var err error
		used := allocated(func() {
			_, err = m.Decode(nil, m, "", []byte(test.body), "application/json", Limits{MaxMessage: test.limit})
		})
		st, _ := err.(*wire.Status)
		if st == nil {
			st = &wire.Status{}
		}
		if st.Code != test.code || st.HTTPStatus() != test.http {
			t.Errorf("%s: %v, want %v and HTTP %d", test.name, err, test.code, test.http)
		}
		if most := uint64(10 * max(test.limit, len(test.body))); test.limit < 1<<20 && used > most {
			t.Errorf("%s of %d bytes: the heap gave %d bytes, want %d at most", test.name, len(test.body), used, most)
		}
	}
}

func TestEndpointCarriesHTTPBodies(t *testing.T) {
	s, table := messagingTable(t)
	up := only(t, table, "POST", "/v1/files/a/b.png")
	if !up.Raw() || !up.RawAnswer() {
		t.Errorf("an upload is raw %v and its answer %v, want both", up.Raw(), up.RawAnswer())
	}
	msg, err := up.Decode(nil, up, "", []byte("{\xff\x00"), "image/png", Limits{})
	if err != nil || !sameText(t, s, up.Method.Input, msg, `name: "a/b.png" file { content_type: "image/png" data: "{\xff\x00" }`) {
		t.Errorf("the upload is %x, %v", msg, err)
	}
	raw := only(t, table, "POST", "/v1/raw")
	if msg, err = raw.Decode(nil, raw, "", []byte("{}"), "text/x", Limits{}); err != nil || !sameText(t, s, raw.Method.Input, msg, `content_type: "text/x" data: "{}"`) {
		t.Errorf("the raw request is %x, %v", msg, err)
	}
	if raw.RawAnswer() {
		t.Error("an answer that is a message is raw")
	}
	tests := []struct {
		name, msg, data, contentType string
	}{
		{"whole", "\x0a\x09image/png\x12\x02\xff\x00", "\xff\x00", "image/png"},
		{"without a type", "\x12\x01x", "x", "application/octet-stream"},
		{"with a type that is no header", "\x0a\x04a\r\nb\x12\x01x", "x", "application/octet-stream"},
		{"empty", "", "", "application/octet-stream"},
	}
	for _, test := range tests {
		body, contentType, err := up.Encode([]byte("<"), []byte(test.msg), EncodeOptions{})
		if err != nil || string(body) != "<"+test.data || contentType != test.contentType {
			t.Errorf("answer %s: %q of %q, %v, want %q of %q", test.name, body, contentType, err, test.data, test.contentType)
		}
	}
	if _, _, err := up.Encode(nil, []byte("\x12\x05x"), EncodeOptions{}); err == nil || err.(*wire.Status).Code != wire.Internal {
		t.Errorf("an answer that is cut off: %v, want INTERNAL", err)
	}
}

func TestEndpointEncodesAnswersAsGRPCGatewayDoes(t *testing.T) {
	s, table := messagingTable(t)
	answer := codecMessage(t, s, "messaging.v1.Answer")
	full, err := FromJSON(nil, answer, []byte(`{"list":[{"name":"a","text":"b"},{}],"counts":{"y":2,"x":1},"total":"5","one":{"text":"t"},"file":{"contentType":"a/b","data":"AQ=="}}`), s, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ path, full, empty, silent string }{
		{"/v1/list", `[{"name":"a","text":"b"},{"name":"","text":""}]`, `[]`, `[]`},
		{
			"/v1/answer", `{"list":[{"name":"a","text":"b"},{"name":"","text":""}],"counts":{"x":1,"y":2},"total":"5","one":{"name":"","text":"t"},"file":{"contentType":"a/b","data":"AQ==","extensions":[]}}`,
			`{"list":[],"counts":{},"total":"0","one":null,"file":null}`, `{}`,
		},
		{"/v1/answer/counts", `{"x":1,"y":2}`, `{}`, `{}`},
		{"/v1/answer/total", `"5"`, `"0"`, `"0"`},
		{"/v1/answer/one", `{"name":"","text":"t"}`, `{"name":"","text":""}`, `{}`},
		{"/v1/answer/file", "\x01", ``, ``},
	}
	for _, test := range tests {
		m := only(t, table, "GET", test.path)
		for _, c := range []struct {
			msg  []byte
			o    EncodeOptions
			want string
		}{{full, EncodeOptions{}, test.full}, {nil, EncodeOptions{}, test.empty}, {nil, EncodeOptions{OmitUnset: true}, test.silent}} {
			body, _, err := m.Encode(nil, c.msg, c.o)
			if err != nil || string(body) != c.want {
				t.Errorf("GET %s of %x: %s, %v, want %s", test.path, c.msg, body, err, c.want)
			}
		}
	}
	// The whole message is what the default marshaler of grpc-gateway writes.
	read := dynamicpb.NewMessage(answer.Descriptor())
	for _, msg := range [][]byte{full, nil} {
		if err := proto.Unmarshal(msg, read); err != nil {
			t.Fatal(err)
		}
		text, err := (&runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: true}}).Marshal(read)
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		compactJSON(&want, text)
		body, contentType, err := only(t, table, "GET", "/v1/answer").Encode(nil, msg, EncodeOptions{})
		if err != nil || string(body) != want.String() || contentType != "application/json" {
			t.Errorf("the answer is %s of %q, %v, want %s", body, contentType, err, want.String())
		}
	}
}

func TestEndpointSaysWhatIsWrongWithAnAnswer(t *testing.T) {
	s := codecSchema(t, warehouse)
	m := Implicit(&schema.Method{Path: "/x.Y/Z", Input: codecMessage(t, s, "warehouse.v1.Crate"), Output: codecMessage(t, s, "warehouse.v1.Crate"), Schema: s})
	tests := []struct{ msg, want string }{
		{"\xff", "not a message on the wire"},
		{"\x72\x01\xff", `field "labelText": a string that is not UTF-8`},
		{"\x8a\x01\x03\x72\x01\xff", `field "inner.labelText": a string that is not UTF-8`},
		{"\x92\x05\x07\x08\xff\xff\xff\xff\xff\x7f", `field "madeAt": a google.protobuf.Timestamp of 4398046511103 seconds and 0 nanoseconds is out of range`},
	}
	for _, test := range tests {
		_, _, err := m.Encode(nil, []byte(test.msg), EncodeOptions{})
		want := "sluice: the backend's answer cannot be written as JSON of warehouse.v1.Crate: " + test.want
		if st, ok := err.(*wire.Status); !ok || st.Message != want || st.Code != wire.Internal || st.HTTPStatus() != 500 {
			t.Errorf("answer %x: %v, want %s", test.msg, err, want)
		}
	}
}
