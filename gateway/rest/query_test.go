package rest

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// queryMethod takes a message of that type, all of it by path and query unless the
// binding says otherwise.
func queryMethod(t testing.TB, s *schema.Schema, name protoreflect.FullName, b schema.Binding) *Endpoint {
	t.Helper()
	m := codecMessage(t, s, name)
	e, err := newEndpoint(&schema.Method{Path: "/x.Y/Z", Input: m, Output: m, Schema: s, Bindings: []schema.Binding{b}}, &b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var registerEnums sync.Once

// queryOracle knows the enums of a schema, which it looks for among those of the binary.
func queryOracle(t testing.TB, s *schema.Schema) {
	registerEnums.Do(func() {
		for _, name := range []protoreflect.FullName{"warehouse.v1.Crate", "warehouse.v1.Record"} {
			fields := codecMessage(t, s, name).Descriptor().Fields()
			for i := range fields.Len() {
				e := fields.Get(i).Enum()
				if e == nil {
					continue
				}
				if _, err := protoregistry.GlobalTypes.FindEnumByName(e.FullName()); err == nil {
					continue
				}
				if err := protoregistry.GlobalTypes.RegisterEnum(dynamicpb.NewEnumType(e)); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

var querySeeds = []string{
	"", "&", "a", "=", "count=1", "count=", "count", "count=x", "count=1&count=2", "count=2147483648", "count=-5", "count=%2B5", "count=1e3", "count=0x10", "count=+5",
	"serial=9223372036854775807", "serial=9223372036854775808", "shelf=-1", "shelf=7", "stock=18446744073709551615", "shift=-3&balance=-4&mark=5&seal=6&slope=-7&depth=-8",
	"weight=1.5&width=2.5", "weight=NaN", "weight=inf", "weight=1e999", "width=1e39", "weight=0x1p-2", "fragile=true", "fragile=1", "fragile=T", "fragile=yes", "fragile=",
	"labelText=a+b%20c", "label_text=a", "label_text=a&labelText=b", "labelText=%C3%A4", "labelText=%zz", "labelText=%FF", "labelText=", "labelText=a;b", "labelText=a=b", "%6CabelText=x", "labelText=%26",
	"picture=AQID", "picture=-_-_", "picture=AQI", "picture=AQI%3D", "picture=%2B%2F%2B%2F", "picture=?", "picture=+/+/",
	"size=SIZE_TINY", "size=1", "size=99", "size=NOPE", "size=-3", "size=", "sizes=SIZE_LARGE&sizes=1",
	"inner.count=1", "inner.inner.labelText=x&inner.count=2", "inner.count=1&inner.count=2", "inner=1", "inner.nope=1", "count.x=1", "inner.=1", ".count=1", "inner..count=1",
	"labels=a&labels=b&count=1&labels=c", "counts=1&counts=2", "loose=1&loose=0", "weights=1&weights=NaN", "counts=1,2", "pictures=AQ%3D%3D", "flags=true&flags=0", "serials=1", "balances=-1", "marks=1", "depths=-2",
	"crates=1", "crates.count=1", "byString=a", "byString[a]=b", "by_string.a=b", "counts=x", "counts=1&counts=",
	"cork=a", "cork=a&nails=1", "cover.count=1&cover.labelText=x", "cover.count=1&cork=x", "nothing=NULL_VALUE", "nothing=0", "inner.cork=a&inner.nails=1", "inner.cork=a&nails=1", "cork=a&cork=b",
	"maybeCount=0", "maybe_label=", "maybeSize=SIZE_SMALL",
	"madeAt=2024-02-29T12:34:56Z", "madeAt=2024-02-29T12:34:56.5%2B02:00", "madeAt=yesterday", "madeAt=0000-01-01T00:00:00Z", "made_at.seconds=5",
	"shelfLife=1.5s", "shelfLife=1h30m", "shelfLife=-2ms", "shelfLife=x", "shelfLife=", "shelfLife=0", "shelfLife=400000000000s", "shelf_life.nanos=5",
	"mask=a.b,c", "mask=label_text", "mask=", "mask.paths=a&mask.paths=b", "times=2024-01-01T00:00:00Z&times=2025-01-01T00:00:00Z", "int64Values=1&int64Values=2",
	"boolValue=true&int32Value=1&int64Value=2&uint32Value=3&uint64Value=4&floatValue=5&doubleValue=6&stringValue=&bytesValue=AQ", "int32Value=x", "int32_value.value=5",
	"facts={\"a\":1}", "facts=x", "value=1", "value=\"x\"", "value={\"a\":[null]}", "value=", "values=1&values=2", "notes=[1]", "empty=", "empty={}", "empty=x", "any={}", "any.type_url=x",
	"far=1", "%22odd%22 name=x", "odd_name=x", "nullValue=NULL_VALUE",
	strings.Repeat("inner.", 31) + "count=1", strings.Repeat("inner.", 32) + "count=1",
	"nope=1", "nope.a=1&count=1", "Count=1",
}

// queryStricter are the ways in which a query is refused here that grpc-gateway takes, by
// what the fault says.
var queryStricter = map[string]string{
	"map cannot be said":        `"m[k]=v" is grpc-gateway's own; http.proto knows no maps in queries`,
	"not UTF-8":                 "a string must be UTF-8; there the message cannot be encoded later",
	`must be written %3B`:       "some read it as a separator of parameters",
	"more than 32 fields deep":  "depth is bounded",
	"no time such as":           "more than nine digits of a second are lost there",
	"parameters, limit":         "their number is bounded",
	"bytes, limit":              "so is their size",
	"no value of":               "an enum's number with a sign or zeros before it: both read it; see queryLooser",
	`"%" without two`:           "net/url refuses it too, and the caller of the oracle ignores that",
	"not JSON: given twice":     "a Value that has a key twice",
	"not JSON: nested deeper":   "depth is bounded",
	"not JSON: a malformed num": "protojson takes 1e for a number",
}

// queryLooser tells why grpc-gateway may refuse a query that is taken here.
func queryLooser(raw string, oracle error) string {
	text := oracle.Error()
	switch {
	case errors.Is(oracle, errOraclePanicked):
		return "dynamic messages panic on some of what it sets"
	case strings.Contains(text, "duplicate field"):
		return "a list may be given by both of its names: all elements count"
	case strings.Contains(text, "time: "), strings.Contains(text, "unknown unit"), strings.Contains(text, "missing unit"):
		return "durations are taken as JSON has them too, up to 10,000 years"
	}
	return ""
}

// checkQuery compares what a query means.
func checkQuery(t *testing.T, s *schema.Schema, e *Endpoint, raw string) {
	t.Helper()
	got, err := e.Decode(nil, Match{Endpoint: e}, raw, nil, "", Limits{IgnoreUnknownParameters: true})
	if _, strict := e.Decode(nil, Match{Endpoint: e}, raw, nil, "", Limits{}); strict != nil && err == nil {
		return // an unknown parameter "a.b" makes the message a there, and nothing here
	}
	want := dynamicpb.NewMessage(e.input.desc)
	values, wantErr := url.ParseQuery(raw)
	if wantErr == nil {
		if strings.Contains(raw, "[") || strings.Contains(strings.ToLower(raw), "%5b") {
			return // a map, see queryStricter
		}
		wantErr = oracleQuery(want, values)
	}
	switch {
	case err != nil && wantErr == nil:
		for part := range queryStricter {
			if strings.Contains(err.Error(), part) {
				return
			}
		}
		t.Fatalf("query %q: %v, want %v", raw, err, want)
	case err == nil && wantErr != nil:
		if queryLooser(raw, wantErr) == "" {
			t.Fatalf("query %q is taken, want %v", raw, wantErr)
		}
		return
	case err != nil:
		return
	}
	read := dynamicpb.NewMessage(e.input.desc)
	if err := proto.Unmarshal(got, read); err != nil {
		t.Fatalf("query %q wrote %x: %v", raw, got, err)
	}
	snakeMasks(want)
	if !proto.Equal(read, want) {
		t.Fatalf("query %q = %v, want %v", raw, read, want)
	}
}

var errOraclePanicked = errors.New("the oracle panicked")

func oracleQuery(m proto.Message, values url.Values) (err error) {
	defer func() {
		if recover() != nil {
			err = errOraclePanicked
		}
	}()
	return runtime.PopulateQueryParameters(m, values, utilities.NewDoubleArray(nil))
}

// snakeMasks writes the paths of masks by the names of fields: a caller who writes JSON
// names means the same fields, which grpc-gateway would hand on as they are.
func snakeMasks(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() == nil || f.IsList() || f.IsMap() {
			return true
		}
		if f.Message().FullName() != "google.protobuf.FieldMask" {
			snakeMasks(v.Message())
			return true
		}
		mask := m.Mutable(f).Message()
		paths := mask.Mutable(mask.Descriptor().Fields().ByNumber(1)).List()
		for i := range paths.Len() {
			paths.Set(i, protoreflect.ValueOfString(snakeCase(paths.Get(i).String())))
		}
		return true
	})
}

func TestQueryMeansWhatGRPCGatewayReads(t *testing.T) {
	s := codecSchema(t, warehouse)
	queryOracle(t, s)
	e := queryMethod(t, s, "warehouse.v1.Crate", schema.Binding{Verb: "GET", Template: "/v1"})
	for _, raw := range querySeeds {
		checkQuery(t, s, e, raw)
	}
}

func FuzzQuery(f *testing.F) {
	s := codecSchema(f, warehouse)
	queryOracle(f, s)
	e := queryMethod(f, s, "warehouse.v1.Crate", schema.Binding{Verb: "GET", Template: "/v1"})
	for _, raw := range querySeeds {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) { checkQuery(t, s, e, raw) })
}

func TestQuerySaysWhichParameterAndWhy(t *testing.T) {
	s := codecSchema(t, warehouse)
	all := schema.Binding{Verb: "GET", Template: "/v1/{label_text}/{inner.count}"}
	tests := []struct {
		binding    schema.Binding
		query      string
		want       string
		whenSilent bool // refused though unknown parameters are ignored
	}{
		{all, "nope=1", `parameter "nope": warehouse.v1.Crate has no field "nope"`, false},
		{all, "inner.nope=1", `parameter "inner.nope": warehouse.v1.Crate has no field "nope"`, false},
		{all, "count.x=1", `parameter "count.x": "count" is no message that has fields`, false},
		{all, "labels.x=1", `parameter "labels.x": "labels" is no message that has fields`, false},
		{all, "labelText=x", `parameter "labelText": it is said by the path`, false},
		{all, "inner.count=1", `parameter "inner.count": it is said by the path`, false},
		{all, "count=1&count=2", `parameter "count": given twice, and it is no list`, true},
		{all, "made_at=2024-01-01T00:00:00Z&madeAt=2025-01-01T00:00:00Z", `parameter "madeAt": given twice, and it is no list`, true},
		{all, "count=one", `parameter "count": "one" is no integer of 32 bits`, true},
		{all, "size=HUGE", `parameter "size": "HUGE" is no value of warehouse.v1.Size`, true},
		{all, "fragile=yes", `parameter "fragile": "yes" is neither true nor false`, true},
		{all, "weight=heavy", `parameter "weight": "heavy" is no number that fits 64 bits of floating point`, true},
		{all, "inner=x", `parameter "inner": it is a message: name one of its fields, as in "inner.name"`, true},
		{all, "crates=x", `parameter "crates": a list of messages cannot be said by a query`, true},
		{all, "byString=x", `parameter "byString": a map cannot be said by a query`, true},
		{all, "cork=a&nails=1", `parameter "nails": "cork" is given too, and both are of the oneof "lid"`, true},
		{all, "labels=a;b", `parameter "labels": a ";" must be written %3B`, true},
		{all, "labels=%4", `parameter "labels": a "%" without two hexadecimal digits behind it`, true},
		{all, "labels=%ff", `parameter "labels": not UTF-8`, true},
		{all, strings.Repeat("a&", 1000), `the query has 1001 parameters, limit 1000`, true},
		{all, "labels=" + strings.Repeat("a", 70000), `the query has 70007 bytes, limit 65536`, true},
		{all, strings.Repeat("inner.", 40) + "count=1", `parameter "inner.inner.inner.inner.inner.inner.inner.inner.inner.inner.inne…": more than 32 fields deep`, false},
		{schema.Binding{Verb: "POST", Template: "/v1/a/b", Body: "*"}, "count=1", `parameter "count": this path takes no parameters: all that the path does not say is said by the body`, false},
		{schema.Binding{Verb: "POST", Template: "/v1/a/b", Body: "inner"}, "inner.count=1", `parameter "inner.count": it is said by the body`, false},
		{schema.Binding{Verb: "POST", Template: "/v1/a/b", Body: "cover"}, "cork=x", `parameter "cork": "cover" is given too, and both are of the oneof "lid"`, true},
		{schema.Binding{Verb: "GET", Template: "/v1/a/{cork}"}, "nails=1", `parameter "nails": "cork" is given too, and both are of the oneof "lid"`, true},
	}
	for _, test := range tests {
		method := &schema.Method{Path: "/x.Y/Z", Input: codecMessage(t, s, "warehouse.v1.Crate"), Output: codecMessage(t, s, "warehouse.v1.Crate"), Schema: s, Bindings: []schema.Binding{test.binding}}
		table, faults := NewTable([]*schema.Method{method})
		found, _ := table.Match(test.binding.Verb, "/v1/a/7")
		if found == nil {
			found, _ = table.Match(test.binding.Verb, "/v1/a/b")
		}
		if len(found) != 1 {
			t.Fatalf("%v: %d matches, faults %v", test.binding, len(found), faults)
		}
		_, err := found[0].Decode(nil, found[0], test.query, nil, "", Limits{})
		st, ok := err.(*wire.Status)
		if !ok || st.Code != wire.InvalidArgument || st.Message != "sluice: "+test.want {
			t.Errorf("query %.60q: %v, want %s", test.query, err, test.want)
		}
		_, err = found[0].Decode(nil, found[0], test.query, nil, "", Limits{IgnoreUnknownParameters: true})
		if (err != nil) != test.whenSilent {
			t.Errorf("query %.60q with unknown parameters ignored: %v, want refused %v", test.query, err, test.whenSilent)
		}
	}
}
