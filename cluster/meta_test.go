package cluster

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

func TestMetaFitsWhateverItSays(t *testing.T) {
	for _, text := range []string{"", "a", "gateway-1.example", strings.Repeat("<", 1000), strings.Repeat("ü", 500), "a\x00\n\xff\"\\", strings.Repeat("\u2028", 200)} {
		m := meta{Host: text, Version: text, Listen: text, Admin: text, Draining: true, Life: "abcdefgh"}
		b := m.encode()
		if len(b) > memberlist.MetaMaxSize {
			t.Errorf("%.20q: %d bytes", text, len(b))
		}
		got, err := decodeMeta(b)
		if err != nil || !got.Draining || got.Life != m.Life || got.Host != shorten(text) {
			t.Errorf("%.20q: got %+v, %v", text, got, err)
		}
	}
}

func TestMetaOfLaterVersionsIsRead(t *testing.T) {
	got, err := decodeMeta([]byte("\x02" + `{"h":"a","i":"abcdefgh","new":{"x":[1]}}`))
	if err != nil || got.Host != "a" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzMeta(f *testing.F) {
	f.Add(meta{Host: "a", Life: "abcdefgh"}.encode())
	f.Add([]byte("\x01{}"))
	f.Add([]byte("\x01" + `{"h":"\u0000","i":"a"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		if again, err := decodeMeta(m.encode()); err != nil || again != m {
			t.Errorf("%+v is read as %+v, %v", m, again, err)
		}
	})
}

func FuzzGoodbyes(f *testing.F) {
	f.Add(encodeGoodbyes([]goodbye{{Node: "abcdefgh", Life: "abcdefgh"}}))
	f.Add([]byte("\x00[]"))
	f.Add([]byte("\x00" + `[{"n":"abcdefg1","i":"x"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, ok := decodeGoodbyes(b)
		if !ok {
			return
		}
		again, ok := decodeGoodbyes(encodeGoodbyes(all))
		if !ok || len(again) != len(all) || len(all) > maxGoodbyes {
			t.Errorf("%+v is read as %+v", all, again)
		}
	})
}

func TestGoodbyesAreBounded(t *testing.T) {
	many := make([]goodbye, maxGoodbyes+1)
	for i := range many {
		many[i] = goodbye{Node: "abcdefgh", Life: "abcdefgh"}
	}
	if _, ok := decodeGoodbyes(encodeGoodbyes(many)); ok {
		t.Error("too many are taken")
	}
	if _, ok := decodeGoodbyes(encodeGoodbyes(many[:maxGoodbyes])); !ok {
		t.Error("as many as are told are not taken")
	}
	if _, ok := decodeGoodbyes(bytes.Repeat([]byte{0}, 100)); ok {
		t.Error("garbage is taken")
	}
}
