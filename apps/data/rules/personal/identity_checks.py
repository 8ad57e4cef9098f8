"""Check digits of the numbers by which states know people, of their capitals and digits alone."""


def _is_month_and_day(digits: str) -> bool:
    return 1 <= int(digits[:2]) <= 12 and 1 <= int(digits[2:]) <= 31


def _weighted(number: str, weights: range) -> int:
    return sum(int(d) * w for d, w in zip(number, weights, strict=False))


def is_chinese(number: str) -> bool:
    """GB 11643-1999: a birth date in the middle, ISO 7064 MOD 11-2 at the end."""
    if number[6:8] not in ("18", "19", "20") or not _is_month_and_day(number[10:14]):
        return False
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(number[:17]))
    return number[17] == "10X98765432"[total % 11]


def is_spanish(number: str) -> bool:
    """The letter is the number modulo 23 (Orden INT/2058/2008); X, Y and Z stand for 0, 1, 2."""
    digits = number[:-1].translate(str.maketrans("XYZ", "012"))
    return len(digits) == 8 and number[-1] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23]


def is_cpf(number: str) -> bool:
    """Two check digits modulo 11 (Receita Federal)."""
    for size in (9, 10):
        if _weighted(number[:size], range(size + 1, 1, -1)) * 10 % 11 % 10 != int(number[size]):
            return False
    return len(set(number)) > 1


def is_korean(number: str) -> bool:
    return _is_month_and_day(number[2:6])


def is_british(number: str) -> bool:
    """Prefixes that were never given out (HMRC, NIM39110)."""
    return number[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def is_french(number: str) -> bool:
    """The key is 97 less the number modulo 97 (INSEE)."""
    return len(number) == 15 and 97 - int(number[:13]) % 97 == int(number[13:])


def is_aadhaar(number: str) -> bool:
    """Verhoeff's check: products of permuted digits in the dihedral group of order 10 end at 0."""
    product = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(place % 8):
            value = _PERMUTED[value]
        product = _in_dihedral_group(product, value)
    return product == 0


def _in_dihedral_group(first: int, second: int) -> int:
    """0-4 are turns of a pentagon and 5-9 turns after a reflection: 2 x 4 is 1, 5 x 1 is 9."""
    turn = (first + (second if first < 5 else -second)) % 5
    return turn + 5 * ((first < 5) != (second < 5))


_PERMUTED = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def is_taiwanese(number: str) -> bool:
    """The letter is a number of two digits; all digits, weighted, end with the last one at 0."""
    place = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(number[0]) + 10
    total = place // 10 + place % 10 * 9 + _weighted(number[1:9], range(8, 0, -1))
    return (total + int(number[9])) % 10 == 0


def is_of_hong_kong(number: str) -> bool:
    """Letters are 10 to 35, a missing first one 36, the last digit A is 10; modulo 11."""
    values = [int(char, 36) for char in number]
    values = values if len(values) == 9 else [36, *values]
    return sum(v * w for v, w in zip(values, range(9, 0, -1), strict=True)) % 11 == 0


def is_singaporean(number: str) -> bool:
    """The letter at the end, of those who were born or came before (S, F) and after 2000 (T, G)."""
    total = int(number[1]) * 2 + _weighted(number[2:8], range(7, 1, -1)) + 4 * (number[0] in "TG")
    letters = "JZIHGFEDCBA" if number[0] in "ST" else "XWUTRQPNMLK"
    return number[8] == letters[total % 11]


def is_snils(number: str) -> bool:
    """The last two digits are the weighted sum of the others modulo 101."""
    return _weighted(number[:9], range(9, 0, -1)) % 101 % 100 == int(number[9:])


def is_chilean(number: str) -> bool:
    """Modulo 11 of the digits from the right, weighted by 2 to 7 again and again."""
    total = sum(int(d) * (2 + i % 6) for i, d in enumerate(reversed(number[:-1])))
    return number[-1] == "0K987654321"[total % 11]
