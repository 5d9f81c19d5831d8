package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// FuzzImage reads files of rows of which any bytes are changed, each by three bytes
// of the input: where, and to what. Pages that hang together in any way end in an
// error at worst, and never in rows that a search would miss. The meta pages are
// sealed, else nothing would get behind them.
func FuzzImage(f *testing.F) {
	var files [][]byte
	for i, rows := range []int{0, 3, 60} {
		files = append(files, smallPages(f, rows))
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{10, 0, 255, 0, 12, 3}) // counts of elements
		f.Add(uint8(i), []byte{34, 0, 2, 34, 4, 2})   // roots
	}
	f.Fuzz(func(t *testing.T, which uint8, patches []byte) {
		b := slices.Clone(files[int(which)%len(files)])
		for ; len(patches) >= 3; patches = patches[3:] {
			b[int(binary.LittleEndian.Uint16(patches))%len(b)] = patches[2]
		}
		sealMetas(b)
		mustBeReadable(t, b)
	})
}

func mustBeReadable(t *testing.T, b []byte) {
	t.Helper()
	im, err := newImage(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		mustBeVerdict(t, err)
		return
	}
	var last []byte
	var lastBucket string
	mustBeVerdict(t, im.walk(func(bucket string, key, _ []byte) error {
		if bucket == lastBucket && bytes.Compare(last, key) >= 0 {
			t.Errorf("bucket %q: row %q follows row %q", bucket, key, last)
		}
		last, lastBucket = key, bucket
		return nil
	}))
	_, err = im.verify(nil)
	mustBeVerdict(t, err)
}

func mustBeVerdict(t *testing.T, err error) {
	t.Helper()
	if err != nil && !Damaged(err) && !newer(err) {
		t.Errorf("neither good nor damaged: %v", err)
	}
}

// smallPages returns a file of as small pages as bbolt makes.
func smallPages(t testing.TB, rows int) []byte {
	t.Helper()
	path := filepath.Join(inMemory(t), "small")
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1024, NoFreelistSync: true, NoSync: true, NoGrowSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = bolt.Update(func(btx *bbolt.Tx) error {
		tx := &Tx{bolt: btx}
		for i := range rows {
			if err := tx.Put(fmt.Sprint("bucket", i%2), fmt.Appendf(nil, "key%03d", i), make([]byte, 2*i)); err != nil {
				return err
			}
		}
		return tx.putState()
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	im, err := newImage(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.verify(nil); err != nil {
		t.Fatal(err)
	}
	return b[:int64(im.pages)*im.size]
}

// sealMetas gives meta pages the checksum that they ought to have.
func sealMetas(b []byte) {
	for _, at := range []int{0, 1024} {
		if len(b) < at+pageHeader+metaSize {
			return
		}
		meta := b[at+pageHeader:]
		h := fnv.New64a()
		h.Write(meta[:metaSize-8])
		binary.NativeEndian.PutUint64(meta[metaSize-8:], h.Sum64())
	}
}
