package rest

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"sluice/gateway/schema"
)

// codecSchema compiles .proto texts by file name.
func codecSchema(t testing.TB, sources map[string]string) *schema.Schema {
	t.Helper()
	open := func(path string) (io.ReadCloser, error) {
		if text, ok := sources[path]; ok {
			return io.NopCloser(strings.NewReader(text)), nil
		}
		return nil, os.ErrNotExist
	}
	var files []string
	for name := range sources {
		files = append(files, name)
	}
	set, err := schema.CompileSources(context.Background(), open, []string{""}, files)
	if err != nil {
		t.Fatal(err)
	}
	s, err := schema.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	if faults := s.Faults(); len(faults) > 0 {
		t.Fatal(faults)
	}
	return s
}

// codecMessage is a type of a schema.
func codecMessage(t testing.TB, s *schema.Schema, name protoreflect.FullName) protoreflect.MessageType {
	t.Helper()
	m, err := s.FindMessageByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// warehouse has a field of every kind there is.
var warehouse = map[string]string{
	"warehouse.proto": `
syntax = "proto3";
package warehouse.v1;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Size {
  option allow_alias = true;
  SIZE_UNSPECIFIED = 0;
  SIZE_SMALL = 1;
  SIZE_TINY = 1;
  SIZE_LARGE = 2;
  SIZE_NEGATIVE = -3;
}

message Crate {
  double weight = 1;
  float width = 2;
  int32 count = 3;
  int64 serial = 4;
  uint32 shelf = 5;
  uint64 stock = 6;
  sint32 shift = 7;
  sint64 balance = 8;
  fixed32 mark = 9;
  fixed64 seal = 10;
  sfixed32 slope = 11;
  sfixed64 depth = 12;
  bool fragile = 13;
  string label_text = 14;
  bytes picture = 15;
  Size size = 16;
  Crate inner = 17;

  repeated double weights = 21;
  repeated float widths = 22;
  repeated int32 counts = 23;
  repeated int64 serials = 24;
  repeated sint64 balances = 25;
  repeated fixed32 marks = 26;
  repeated sfixed64 depths = 27;
  repeated bool flags = 28;
  repeated string labels = 29;
  repeated bytes pictures = 30;
  repeated Size sizes = 31;
  repeated Crate crates = 32;
  repeated int32 loose = 33 [packed = false];

  map<string, string> by_string = 41;
  map<int32, Crate> by_int32 = 42;
  map<int64, int64> by_int64 = 43;
  map<uint32, bool> by_uint32 = 44;
  map<uint64, double> by_uint64 = 45;
  map<sint32, Size> by_sint32 = 46;
  map<sint64, bytes> by_sint64 = 47;
  map<fixed32, float> by_fixed32 = 48;
  map<sfixed64, uint64> by_sfixed64 = 49;
  map<bool, string> by_bool = 50;
  map<string, google.protobuf.Value> by_value = 51;

  oneof lid {
    string cork = 61;
    int32 nails = 62;
    Crate cover = 63;
    google.protobuf.NullValue nothing = 64;
    google.protobuf.Value whatever = 65;
    bool taped = 66;
  }
  optional int32 maybe_count = 71;
  optional string maybe_label = 72;
  optional Size maybe_size = 73;

  google.protobuf.Any any = 81;
  google.protobuf.Timestamp made_at = 82;
  google.protobuf.Duration shelf_life = 83;
  google.protobuf.Struct facts = 84;
  google.protobuf.ListValue notes = 85;
  google.protobuf.Value value = 86;
  google.protobuf.NullValue null_value = 87;
  google.protobuf.FieldMask mask = 88;
  google.protobuf.Empty empty = 89;
  google.protobuf.BoolValue bool_value = 90;
  google.protobuf.Int32Value int32_value = 91;
  google.protobuf.Int64Value int64_value = 92;
  google.protobuf.UInt32Value uint32_value = 93;
  google.protobuf.UInt64Value uint64_value = 94;
  google.protobuf.FloatValue float_value = 95;
  google.protobuf.DoubleValue double_value = 96;
  google.protobuf.StringValue string_value = 97;
  google.protobuf.BytesValue bytes_value = 98;
  repeated google.protobuf.Any anys = 99;
  repeated google.protobuf.Timestamp times = 100;
  repeated google.protobuf.Value values = 101;
  repeated google.protobuf.NullValue nulls = 102;
  repeated google.protobuf.Int64Value int64_values = 103;
  map<string, google.protobuf.Duration> lives = 104;

  string odd_name = 300 [json_name = "\"odd\" name"];
  int32 far = 536870911;
}
`,
	"archive.proto": `
syntax = "proto2";
package warehouse.v1;

enum Grade { GOOD = 1; BAD = 2; }

message Record {
  required string id = 1;
  optional int32 pages = 2 [default = 7];
  optional Grade grade = 3;
  repeated int32 lines = 4;
  repeated int32 packed_lines = 5 [packed = true];
  optional group Cover = 6 { optional string title = 1; optional Record copy = 2; }
  repeated group Note = 7 { optional string text = 1; }
  optional Record next = 8;
  oneof place { string shelf = 9; bool lost = 10; }
  extensions 100 to 199;
}

extend Record {
  optional string stamp = 100;
  repeated int32 scans = 101;
  optional Record original = 102;
}
`,
}
