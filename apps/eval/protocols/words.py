"""What judges call their verdict in eleven languages, as alternatives of regular expressions.

In the order of English, Chinese, Japanese, Korean, Russian, Spanish, Portuguese, French, German,
Arabic and Vietnamese. All are in the form that `parsing.plain` gives a text.
"""

FINAL = (
    r"final|overall|最终|最終|最后|总|總|総合|최종|종합|итогов\w+|окончательн\w+|общ\w+|general|geral|"
    r"global\w*|finale|endgültig\w*|gesamt|النهائية?|cuối cùng|chung"
)
RATING = (
    r"rating|score|grade|verdict|评分|評分|得分|分数|分數|分|評価|スコア|点数|점수|평점|점|оценка|балл|рейтинг|"
    r"puntuación|puntaje|calificación|pontuação|avaliação|bewertung|punktzahl|wertung|"
    r"التقييم|الدرجة|điểm số|điểm|đánh giá"
)
NOTE = "not[ae]"
"""a rating in French, German, Spanish and Portuguese, and a remark in some of them"""
VERDICT = (
    r"verdict|winner|choice|decision|preference|judgment|裁决|裁決|判定|判决|判決|结论|結論|胜者|勝者|"
    r"获胜者|獲勝者|판정|결론|승자|вердикт|решение|победитель|veredicto|decisión|ganadora?|veredito|"
    r"decisão|vencedora?|décision|gagnante?|vainqueur|urteil|entscheidung|gewinner|sieger|"
    r"الحكم|القرار|الفائز|phán quyết|kết luận|người thắng"
)
SIDE = (
    r"assistant|answer|response|model|chatbot|助手|助理|回答|答案|アシスタント|어시스턴트|답변|ассистент|ответ|"
    r"asistente|respuesta|assistente|resposta|réponse|assistent|antwort|المساعد|الإجابة|trợ lý|"
    r"câu trả lời"
)
WINS = (
    r"\s+(?:is\s+(?:the\s+)?(?:better|best|winner)|wins)|更好|更优|更優|胜出|勝出|(?:の方)?が(?:より)?"
    r"(?:良|優れ)\w+|[이가] 더 \w+"
    r"|\s+(?:лучше|es mejor|é melhor|est meilleure?|ist besser|أفضل|tốt hơn)"
)
TIE = r"tie|draw|平局|平手|引き分け|무승부|ничья|empate|égalité|unentschieden|gleichstand|تعادل|hòa"
POINTS = r"points?|pts?\.?|分|点|點|점|балл\w*|puntos?|pontos?|punkte?n?|điểm|نقاط|درجات|درجة"
OUT_OF = r"out\s+of|of|из|de|em|sur|von|trên|من"
AT_MOST = r"满分为?|滿分為?|満点|만점|max(?:\.|imum)?|макс\w*\.?|máx\w*\.?|tối đa"
"""before the highest score there is, mostly in brackets"""
TO = r"to|or|a|à|à|ou|o|до|или|até|bis|oder|đến|hoặc|إلى|أو"
AND = r"and|和|と|와|과|и|y|e|et|und|و|và"
OR = r"or|或者?|または|か|또는|혹은|или|o|ou|oder|أو|hoặc"
NOT = r"not|rather than|instead of|而?不是|而非|не|no|não|non|pas|et non|nicht|(?:و)?ليس|không phải"
"""before a verdict that is not given"""
IS_NOT = r"では(?:な|ありませ)|でな|じゃ(?:な|ありませ)|[이가] 아니"
"""behind one, in Japanese and Korean"""
IF = r"若|如果"
"""before one that is only supposed"""
WOULD_BE = r"wäre|würde|serait|sería|seria|был[аои]? бы|なら|라면"
"""behind one"""
SCALE = (
    r"scale|range|from|between|范围|範圍|尺度|スケール|範囲|척도|범위|шкал\w*|диапазон\w*|escala|rango|"
    r"échelle|skala|bereich|مقياس|thang"
)
