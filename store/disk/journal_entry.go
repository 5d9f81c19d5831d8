package disk

import "encoding/binary"

// What an entry of the journal says of one row.
const (
	opPut    = 'P' // bucket, key and value, each after its length
	opDelete = 'D' // bucket and key
)

func appendPut(b []byte, bucket string, key, value []byte) []byte {
	b = appendRow(append(b, opPut), bucket, key)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

func appendDelete(b []byte, bucket string, key []byte) []byte {
	return appendRow(append(b, opDelete), bucket, key)
}

func appendRow(b []byte, bucket string, key []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(bucket)))
	b = append(b, bucket...)
	b = binary.AppendUvarint(b, uint64(len(key)))
	return append(b, key...)
}
