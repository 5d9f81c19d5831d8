package rest

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

func TestToJSONSurvivesAnEntryWhoseKeyHasAnotherType(t *testing.T) {
	s := codecSchema(t, warehouse)
	m := codecMessage(t, s, "warehouse.v1.Crate")
	msg, _ := hex.DecodeString("ca02060a0230300830") // by_string: key "00", then key 48 as a varint
	got, err := ToJSON(nil, m, msg, s)
	if want := `{"byString":{"00":""}}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	debug := debugOf(&anypb.Any{TypeUrl: "x/warehouse.v1.Crate", Value: msg}, &schema.Method{Schema: s})
	if want := `{"byString":{"00":""}}`; string(debug) != want {
		t.Errorf("as a detail of an error it is %s, want %s", debug, want)
	}
	if err := unmarshalDynamic(proto.UnmarshalOptions{}, msg, m.New().Interface()); err == nil {
		t.Error("as a dynamic message it is read, want an error")
	}
}

// A backend chooses its messages, and by its reflection what they are called: a text of
// any length could be made of a few bytes, or take any time.
func TestEncodeBoundsWhatABackendChooses(t *testing.T) {
	if raceEnabled {
		t.Skip("measures time: make race runs it without the race detector")
	}
	var wide strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&wide, "optional int32 f%d = %d;", i, i+1)
	}
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, "int32 f%d = %d;", i, i+1)
	}
	s := codecSchema(t, map[string]string{"long.proto": `syntax = "proto3"; package long.v1;
enum E { ` + strings.Repeat("A", 100_000) + ` = 0; }
message M { repeated E packed = 1; repeated N empty = 2; map<int32, N> entries = 3; repeated W wide = 4; M inner = 5; map<int32, M> inners = 6; O one = 7; }
message O { oneof of { ` + many.String() + ` } }
message N { string ` + strings.Repeat("n", 10_000) + ` = 1; }
message W { ` + wide.String() + ` }`})
	m := codecMessage(t, s, "long.v1.M")
	filled := func(piece string, n int) []byte { return []byte(strings.Repeat(piece, n)) }
	const patience = 5 * time.Second
	pieces := filled("\x2a\x02\x2a\x00", 500_000)
	tests := []struct {
		name string
		msg  []byte
		want string
	}{
		{"an enum of a long name", append([]byte{0x0a, 0x90, 0x4e}, make([]byte, 10_000)...), "as JSON it is larger than 64 MiB"},
		{"fields of a long name, not set", filled("\x12\x00", 1_000_000), "as JSON it is larger than 64 MiB"},
		{"fields that are many, not set", filled("\x22\x00", 1_000_000), "fields together"},
		{"a message in many pieces", pieces, ""},
		{"a choice of many that changes often", protowire.AppendBytes([]byte{0x3a}, filled("\x08\x00\x10\x00", 700_000)), ""},
		{"an entry in many pieces", protowire.AppendBytes([]byte{0x32}, filled("\x12\x02\x2a\x00", 500_000)), ""},
	}
	for _, test := range tests {
		begin := time.Now()
		out, err := appendJSON(nil, m.Descriptor(), test.msg, s, true)
		if took := time.Since(begin); took > patience {
			t.Errorf("%s: took %v", test.name, took)
		}
		st, _ := err.(*wire.Status)
		switch {
		case test.want == "" && err == nil:
		case st == nil || st.Code != wire.Internal || !strings.Contains(st.Message, test.want):
			t.Errorf("%s: %v, want %v with %q", test.name, err, wire.Internal, test.want)
		}
		if len(out) > maxText {
			t.Errorf("%s: %d bytes of text", test.name, len(out))
		}
	}
}

func TestFromJSONBoundsWhatItsSenderChooses(t *testing.T) {
	s := codecSchema(t, warehouse)
	m := codecMessage(t, s, "warehouse.v1.Crate")
	anys := func(depth int) string {
		// The type stands last, behind all that the Any holds.
		doc := `{"labelText":"` + strings.Repeat("x", 100_000) + `","@type":"/warehouse.v1.Crate"}`
		for range depth {
			doc = `{"any":` + doc + `,"@type":"/warehouse.v1.Crate"}`
		}
		return `{"any":` + doc + `}`
	}
	var entries strings.Builder
	entries.WriteString(`{"byInt32":{"0":{}`)
	for i := range 200_000 {
		fmt.Fprintf(&entries, `,"%d":{}`, 1+i)
	}
	entries.WriteString("}}")
	tests := []struct {
		name, doc, want string
		code            wire.Code
	}{
		{"a million levels", strings.Repeat(`{"inner":`, 1_000_000), "nested deeper than 100 levels", wire.InvalidArgument},
		{"a million levels of an unknown field", `{"x":` + strings.Repeat(`[`, 1_000_000), "nested deeper than 100 levels", wire.InvalidArgument},
		{"a message of several times its document", `{"loose":[` + strings.Repeat("1,", 400_000) + `1]}`, "larger than the limit", wire.ResourceExhausted},
		{"packed numbers", `{"weights":[` + strings.Repeat("1,", 400_000) + `1]}`, "larger than the limit", wire.ResourceExhausted},
		{"entries of a map", entries.String(), `field "byInt32[\"`, wire.ResourceExhausted}, // found at the entry, not at the end
		{"messages that are empty", `{"crates":[` + strings.Repeat("{},", 400_000) + `{}]}`, "larger than the limit", wire.ResourceExhausted},
		{"values", `{"values":[` + strings.Repeat("1,", 400_000) + `1]}`, "larger than the limit", wire.ResourceExhausted},
		{"Any within Any", anys(45), "too many google.protobuf.Any", wire.InvalidArgument},
		{"few Any within Any", anys(3), "", wire.OK},
	}
	for _, test := range tests {
		for _, ignore := range []bool{false, true} {
			if !ignore && strings.HasPrefix(test.doc, `{"x":`) {
				continue
			}
			out, err := FromJSON(nil, m, []byte(test.doc), s, Limits{MaxMessage: 1 << 20, IgnoreUnknownFields: ignore})
			st, _ := err.(*wire.Status)
			switch {
			case test.want == "" && err == nil:
			case st == nil || st.Code != test.code || !strings.Contains(st.Message, test.want):
				t.Errorf("%s: %v, want %v with %q", test.name, err, test.code, test.want)
			}
			if cap(out) > 4<<20 {
				t.Errorf("%s: took %d bytes for a message of at most 1 MiB", test.name, cap(out))
			}
		}
	}
}

func TestFromJSONSaysWhatWhereAndWhy(t *testing.T) {
	s := codecSchema(t, warehouse)
	m := codecMessage(t, s, "warehouse.v1.Crate")
	tests := []struct{ doc, want string }{
		{``, `reading the JSON body: the document ends where an object is wanted (line 1, column 1)`},
		{"{\n  \"count\": 1\n  \"serial\": 2\n}", `reading the JSON body: a string where "," or "}" is wanted (line 3, column 3)`},
		{`{"count":"many"}`, `field "count": "many" is no integer of 32 bits (line 1, column 10)`},
		{`{"crates":[{},{"inner":{"cuont":1}}]}`, `field "crates[1].inner.cuont": warehouse.v1.Crate has no such field (line 1, column 25)`},
		{`{"byInt32":{"7":{"count":1.5}}}`, `field "byInt32[\"7\"].count": "1.5" is no integer of 32 bits (line 1, column 26)`},
		{`{"byInt32":{"x":{}}}`, `field "byInt32[\"x\"]": the key is no integer of 32 bits (line 1, column 13)`},
		{`{"count":1,"count":2}`, `field "count": given twice (line 1, column 12)`},
		{`{"byString":{"a":"","a":""}}`, `field "byString[\"a\"]": given twice (line 1, column 21)`},
		{`{"cork":"x","nails":1}`, `field "nails": another field of the oneof "lid" is given too (line 1, column 13)`},
		{`{"size":"HUGE"}`, `field "size": "HUGE" is no value of warehouse.v1.Size (line 1, column 9)`},
		{`{"fragile":"yes"}`, `field "fragile": a string where true or false is wanted (line 1, column 12)`},
		{`{"madeAt":"yesterday"}`, `field "madeAt": "yesterday" is no time such as "2006-01-02T15:04:05.999Z", of the years 1 to 9999 (line 1, column 11)`},
		{`{"shelfLife":"1h"}`, `field "shelfLife": "1h" is no duration such as "1.5s", of at most 315576000000 seconds (line 1, column 14)`},
		{`{"picture":"?"}`, `field "picture": not base64 (line 1, column 12)`},
		{`{"any":{"@type":"a.b.C"}}`, `field "any.@type": the type "a.b.C" is not known (line 1, column 17)`},
		{`{"any":{"count":1}}`, `field "any": "@type" is missing, the type of the google.protobuf.Any (line 1, column 8)`},
		{"{\"labelText\":\"\xff\"}", `field "labelText": a string is not UTF-8 (line 1, column 14)`},
		{`{"labelText":"\ud800"}`, `field "labelText": a bad escape in a string (line 1, column 15)`},
		{`{} {}`, `reading the JSON body: more text after the end of the document (line 1, column 4)`},
		{`{"stock":-1}`, `field "stock": "-1" is no integer of 64 bits without a sign (line 1, column 10)`},
		{`{"weight":1e999}`, `field "weight": "1e999" is no number that fits 64 bits of floating point (line 1, column 11)`},
	}
	for _, test := range tests {
		_, err := FromJSON(nil, m, []byte(test.doc), s, Limits{})
		st, ok := err.(*wire.Status)
		if !ok {
			t.Errorf("FromJSON(%s) is no status: %v", test.doc, err)
			continue
		}
		if got, ok := strings.CutPrefix(st.Message, "sluice: "); !ok || got != test.want {
			t.Errorf("FromJSON(%s) says %q, want %q", test.doc, st.Message, "sluice: "+test.want)
		}
		if st.Code != wire.InvalidArgument || !st.Gateway || len(st.Details) == 0 {
			t.Errorf("FromJSON(%s) is %v, gateway %v, %d bytes of details, want INVALID_ARGUMENT of the gateway with a BadRequest", test.doc, st.Code, st.Gateway, len(st.Details))
		}
	}
}
