package rest

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
)

// cart has an item as shops have them, of about 100 bytes in JSON.
var cart = map[string]string{"cart.proto": `
syntax = "proto3";
package cart.v1;
message Item {
  string cart_id = 1;
  string sku = 2;
  int32 quantity = 3;
  int64 price_cents = 4;
  repeated string tags = 5;
  bool gift = 6;
}`}

const cartItem = `{"cartId":"b0f4c1d2","sku":"SKU-123456","quantity":3,"priceCents":"1999","tags":["new","red"],"gift":true}`

// The codec against what it stands in for: a dynamic message and protojson.
func BenchmarkJSON(b *testing.B) {
	s := codecSchema(b, cart)
	m := codecMessage(b, s, "cart.v1.Item")
	msg, err := FromJSON(nil, m, []byte(cartItem), s, Limits{})
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 1024)
	b.Run("from", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := FromJSON(dst, m, []byte(cartItem), s, Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("to", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ToJSON(dst, m, msg, s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("from, protojson", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v := dynamicpb.NewMessage(m.Descriptor())
			if err := protojson.Unmarshal([]byte(cartItem), v); err != nil {
				b.Fatal(err)
			}
			if _, err := (proto.MarshalOptions{}).MarshalAppend(dst, v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("to, protojson", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v := dynamicpb.NewMessage(m.Descriptor())
			if err := proto.Unmarshal(msg, v); err != nil {
				b.Fatal(err)
			}
			if _, err := (protojson.MarshalOptions{}).MarshalAppend(dst, v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
