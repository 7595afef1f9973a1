#!/bin/sh
# kernels.sh LIST OBJECT...: counts the kernels of each OPNAME.cu.o, prints the counts, and compares them with LIST.
list=$1 bad=0
shift
for object; do
    op=$(basename "$object" .cu.o)
    [ "$op" != "$(basename "$object")" ] || continue
    # one guard variable a kernel, in the stub through which the host launches it
    have=$(nm "$object" | grep -c ' _ZGVZ.*__device_stub__.*__tmp$')
    want=$(awk -v op="$op" '$1 == op { print $2 }' "$list")
    printf 'cuda kernels: %-36s %4d\n' "$op" "$have"
    if [ "$have" != "$want" ]; then
        echo "kernels.sh: $op has $have kernels; $list says ${want:-nothing}" >&2
        bad=1
    fi
done
exit $bad
